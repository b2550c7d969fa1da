//! One connection from the sandbox to the outside: what it is for, whether that agrees with itself, and the way there.
//!
//! ```text
//!  where to ─► a leased address: its name            ┐
//!              another address: only its port counts │ the port is in no rule ─► reset at once, nothing is read
//!              CONNECT: the name that it gives       ┘
//!  in tcp_ports ─► admitted by that name, nothing is read
//!  else the greeting ─► TLS: its name ┐ must be the name of "where to", where that has one
//!                       HTTP: its Host┘ (decided for each request, see `proxy`)
//!                       anything else ─► refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::choke::{Egress, Stopped};
use super::gate::Protocol;
use super::greeting::{Greeting, Heard};
use super::meter::Counted;
use super::proxy;
use super::relay::relay;
use crate::egress::{Host, HostName, Wanted};

/// What a client of TLS is told that is refused: a fatal alert, "access denied". Source: RFC 8446, 6.2.
const ACCESS_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Where a connection is meant to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    /// The host. A name is meant; of an address only that it is none.
    pub(super) host: Host,
    /// The port.
    pub(super) port: u16,
}

/// Takes a connection where it wants to go, if it may. `patience` is the time for its greeting, and for each head of HTTP.
pub(super) async fn pass(egress: Arc<Egress>, mut heard: Heard, goal: Goal, patience: Duration) {
    let Goal { host, port } = &goal;
    if egress.policy().decide(host, *port, Wanted::Tcp).is_ok() {
        let connected = through(&egress, host, *port, Wanted::Tcp).await;
        return match connected {
            Ok(upstream) => relay(&egress, heard, upstream).await,
            Err(_) => heard.stream.reset_on_close(),
        };
    }
    if let Err(reason) = worth_hearing(&egress, &goal) {
        egress.stop(host, Some(*port), None, reason);
        return heard.stream.reset_on_close();
    }
    match heard.greeting(patience).await {
        Ok(Greeting::Tls(name)) => tls(&egress, heard, &goal, name).await,
        Ok(Greeting::Http) => proxy::serve(egress, heard, proxy::For::Goal(goal), patience).await,
        Ok(Greeting::Unknown(reason)) => {
            egress.stop(host, Some(*port), None, reason);
            heard.stream.reset_on_close();
        }
        // It is gone.
        Err(_) => {}
    }
}

/// Whether any greeting could be allowed.
fn worth_hearing(egress: &Egress, goal: &Goal) -> Result<(), String> {
    match &goal.host {
        Host::Name(_) => egress.policy().may_speak(&goal.host, goal.port).map_err(|refusal| refusal.to_string()),
        Host::Address(_) if egress.policy().has_port(goal.port) => Ok(()),
        Host::Address(_) => Err("no rule has this port".to_owned()),
    }
}

async fn tls(egress: &Egress, mut heard: Heard, goal: &Goal, name: Option<HostName>) {
    let meant = match (&goal.host, name) {
        (Host::Name(wanted), Some(name)) if *wanted != name => {
            Err(format!("its TLS greeting is meant for {name}, which is another host"))
        }
        (_, Some(name)) => Ok(Host::Name(name)),
        // Only a rule about the address itself allows this.
        (address @ Host::Address(_), None) if egress.policy().knows(address) => Ok(address.clone()),
        (_, None) => Err("its TLS greeting names no host".to_owned()),
    };
    let connected = match meant {
        Ok(host) => through(egress, &host, goal.port, Wanted::Tls).await,
        Err(reason) => Err(egress.stop(&goal.host, Some(goal.port), Some(Protocol::Tls), reason)),
    };
    match connected {
        Ok(upstream) => relay(egress, heard, upstream).await,
        Err(_) => {
            // The client need not read it.
            let _ = heard.write_all(&ACCESS_DENIED).await;
            let _ = heard.shutdown().await;
        }
    }
}

async fn through(egress: &Egress, host: &Host, port: u16, wanted: Wanted<'_>) -> Result<Counted, Stopped> {
    let permit = egress.admit(host, port, wanted).await?;
    egress.connect(&permit).await
}
