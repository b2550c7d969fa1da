//! Host side of a sandbox's one door.
//!
//! ```text
//!  sandbox's network namespace              host
//!  every TCP connection ─redirected─► tcp ──► 198.18.0.1:80 ──► git.ostler.internal (forge, Access::Session)
//!                                       ├───► 198.18.0.2:3128 ► proxy.ostler.internal: HTTP and CONNECT
//!                                       └───► anything else ──► passage ─► choke (policy, gate) ─► dial ─► outside
//!  every DNS query ──────redirected─► dns ──► names of ours and of the policy: an address that stands for them;
//!                                             all others: NXDOMAIN, reported
//! ```
//!
//! The sockets were made inside the namespace by the launcher, so that no process of the sandbox has a part in
//! them, and there is no other way out. Owns who is served behind which name, what passes to the outside and how, and the limits.
//! What may pass is decided in [`crate::egress`]. Does not know what the services do.

mod choke;
mod dial;
mod dns;
mod gate;
mod greeting;
mod hosts;
mod leases;
mod lookup;
mod meter;
mod pace;
mod passage;
mod proxy;
mod relay;
mod report;
mod tcp;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use ostler_protocol::SessionId;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use choke::Egress;
use pace::Pace;
use report::Reporter;
use tcp::Inside;

use crate::forge::{Access, Forge, git_router};

pub use choke::Outside;
pub use gate::{EgressGate, EgressRequest, GateVerdict, OpenGate, Protocol};
pub use hosts::{DoorHost, DoorHosts};
pub use lookup::{Lookups, Resolver, SystemResolver};
pub use meter::{Account, Bytes};
pub use pace::Rate;
pub use report::{Decision, DoorCounters, DoorEvent, OTHERS, Verdict};
pub use tcp::{Destination, DoorLimits};

/// Why a door cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A descriptor is not the socket that it should be.
    #[error("the door's {which} descriptor is not {expected}")]
    Descriptor {
        /// Which.
        which: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A socket cannot be used.
    #[error("cannot use the door's {which} socket")]
    Socket {
        /// Which.
        which: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a door is served. [`Default`] is right for sandboxes.
#[derive(Clone)]
pub struct DoorOptions {
    /// Limits.
    pub limits: DoorLimits,
    /// How the original destination of a connection is found; tests without a redirect have their own way.
    pub destination: Destination,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self { limits: DoorLimits::default(), destination: Arc::new(tcp::original_destination) }
    }
}

/// The sockets of a door, made in the sandbox's network namespace by the launcher.
#[derive(Debug)]
pub struct DoorSockets {
    /// Listener to which every TCP connection is redirected.
    pub tcp: OwnedFd,
    /// Where DNS queries over IPv4 are redirected to.
    pub dns: OwnedFd,
    /// Where those over IPv6 are redirected to, where there is IPv6.
    pub dns_v6: Option<OwnedFd>,
}

/// A served door. Dropping it closes it, with every connection that goes through it.
pub struct Door {
    reporter: Arc<Reporter>,
    _open: DropGuard,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Door {
    /// Serves the door of a session's sandbox: `hosts` behind it, `outside` beyond, whose bytes go to the session's
    /// `account`. To be called within the runtime.
    pub fn open(
        sockets: DoorSockets,
        (session, account): (SessionId, Arc<Account>),
        hosts: DoorHosts,
        outside: Outside,
        options: DoorOptions,
    ) -> Result<Self, DoorError> {
        let listener = listener(sockets.tcp)?;
        let mut queries = vec![datagram("DNS", sockets.dns)?];
        if let Some(socket) = sockets.dns_v6 {
            queries.push(datagram("DNS over IPv6", socket)?);
        }
        let reporter = Arc::new(Reporter::new(session));
        let closed = CancellationToken::new();
        let inside = Arc::new(Inside {
            hosts: Arc::new(hosts),
            egress: Arc::new(Egress::new(outside, session, account, options.limits.wishes, Arc::clone(&reporter))),
            leases: Mutex::default(),
            queries: Pace::new(options.limits.queries),
            accepted: Pace::new(options.limits.wishes),
            reporter: Arc::clone(&reporter),
            limits: options.limits,
            destination: options.destination,
        });
        tokio::spawn(closed.clone().run_until_cancelled_owned(tcp::serve(listener, Arc::clone(&inside))));
        for socket in queries {
            tokio::spawn(closed.clone().run_until_cancelled_owned(dns::serve(socket, Arc::clone(&inside))));
        }
        let windows = report::turn_windows(Arc::downgrade(&reporter));
        tokio::spawn(closed.clone().run_until_cancelled_owned(windows));
        Ok(Self { reporter, _open: closed.drop_guard() })
    }

    /// What a session's sandbox finds behind its door: git, with what `access` allows.
    #[must_use]
    pub fn services(forge: Forge, access: Access) -> DoorHosts {
        DoorHosts::new().with(DoorHost::GIT, git_router(forge, access))
    }

    /// What happens from now on. A slow reader loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<DoorEvent> {
        self.reporter.subscribe()
    }

    #[cfg(test)]
    fn turn_window(&self) {
        self.reporter.turn_window();
    }

    /// How often the door was used.
    #[must_use]
    pub fn counters(&self) -> DoorCounters {
        self.reporter.counters()
    }
}

fn listener(descriptor: OwnedFd) -> Result<TcpListener, DoorError> {
    let error = |source| DoorError::Socket { which: "TCP", source };
    let socket = Socket::from(descriptor);
    if socket.r#type().ok() != Some(Type::STREAM) || !internet(&socket) || !socket.is_listener().unwrap_or(false) {
        return Err(DoorError::Descriptor { which: "TCP", expected: "a listening TCP socket" });
    }
    socket.set_nonblocking(true).map_err(error)?;
    TcpListener::from_std(socket.into()).map_err(error)
}

fn datagram(which: &'static str, descriptor: OwnedFd) -> Result<UdpSocket, DoorError> {
    let error = |source| DoorError::Socket { which, source };
    let socket = Socket::from(descriptor);
    if socket.r#type().ok() != Some(Type::DGRAM) || !internet(&socket) {
        return Err(DoorError::Descriptor { which, expected: "a UDP socket" });
    }
    socket.set_nonblocking(true).map_err(error)?;
    UdpSocket::from_std(socket.into()).map_err(error)
}

fn internet(socket: &Socket) -> bool {
    matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6))
}

#[cfg(test)]
mod tests;
