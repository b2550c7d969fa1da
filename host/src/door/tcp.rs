//! TCP through the door: every connection of the sandbox ends here and says by its original destination what it wants.
//!
//! ```text
//!  port 53 ──────────────────────► DNS, over TCP
//!  198.18.0.1:80 and the like ───► a service behind the door
//!  198.18.0.2:3128 ──────────────► the proxy
//!  everything else ──────────────► the outside, if the policy lets it (see `passage`)
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::choke::Egress;
use super::dns::Names;
use super::greeting::{Duplex, Heard};
use super::hosts::{DoorHost, DoorHosts, PROXY_PORT};
use super::leases::{Leases, in_v4};
use super::pace::{Pace, Rate};
use super::passage::{Goal, pass};
use super::report::{Decision, Reporter, Verdict};
use super::{dns, proxy};
use crate::egress::Host;

/// Largest head of a request, in bytes, and most of a body in memory at once.
pub(super) const BUFFER: usize = 64 * 1024;

/// Most header lines of a request.
pub(super) const HEADERS: usize = 64;

/// Wait after an accept that failed, such as for want of descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// Most time in which a client takes nothing of what there is for it, in milliseconds: that of a connection without a byte.
const UNREAD_MS: u32 = 15 * 60 * 1000;

/// Port of DNS. Source: RFC 1035.
const DNS_PORT: u16 = 53;

/// How a redirected connection says where it was going.
pub type Destination = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// Reads `SO_ORIGINAL_DST`, which the kernel keeps for each redirected connection, in the family in which it was made: a
/// listener of IPv6 takes connections of both.
pub(super) fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match stream.peer_addr()?.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    address.as_socket().ok_or_else(|| io::Error::other("the original destination is no address of the internet"))
}

/// Limits of the connections of one sandbox. [`Default`] gives the documented ones.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Connections at the same time (256).
    pub connections: usize,
    /// Those of them that it has however many the other sandboxes have (16).
    pub own: usize,
    /// New connections, and requests of HTTP (500 in a second of each).
    pub wishes: Rate,
    /// Queries of DNS (200 in a second).
    pub queries: Rate,
    /// Time in which the head of a request must have come, counted from the connection or the request before it (30 s).
    pub idle: Duration,
    /// Longest life of a connection to a service (20 minutes: more than the longest transfer of the forge).
    pub life: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            own: 16,
            wishes: Rate::per_second(500),
            queries: Rate::per_second(200),
            idle: Duration::from_secs(30),
            life: Duration::from_secs(20 * 60),
        }
    }
}

/// What every connection of one door needs.
pub(super) struct Inside {
    pub(super) hosts: Arc<DoorHosts>,
    pub(super) egress: Arc<Egress>,
    pub(super) leases: Mutex<Leases>,
    pub(super) queries: Pace,
    pub(super) accepted: Pace,
    pub(super) reporter: Arc<Reporter>,
    pub(super) limits: DoorLimits,
    pub(super) destination: Destination,
}

impl Inside {
    /// The names that exist in the sandbox.
    pub(super) fn names(&self) -> Names<'_> {
        Names { hosts: &self.hosts, policy: self.egress.policy(), leases: &self.leases }
    }

    /// The place of a further connection: one of its own while it has few, else one of those that all doors share.
    fn place(&self, open: usize) -> Result<Option<OwnedSemaphorePermit>, &'static str> {
        if open < self.limits.own {
            return Ok(None);
        }
        let place = Arc::clone(self.egress.places()).try_acquire_owned();
        place.map(Some).map_err(|_| "the sandboxes of this host have too many connections open")
    }

    fn refuse(&self, stream: &TcpStream, host: String, port: Option<u16>, reason: &str) {
        stream.reset_on_close();
        let verdict = Verdict::Refused { reason: reason.to_owned() };
        self.reporter.decided(Decision { host, port, protocol: None, verdict });
    }
}

/// Takes connections until dropped; then those that are being served end too.
pub(super) async fn serve(listener: TcpListener, inside: Arc<Inside>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        inside.accepted.turn().await;
        // What has ended meanwhile takes nobody's place.
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a door cannot accept");
                sleep(AGAIN).await;
                continue;
            }
        };
        match (inside.destination)(&stream) {
            Ok(to) if connections.len() >= inside.limits.connections => {
                let reason = "the sandbox has too many connections open";
                inside.refuse(&stream, to.ip().to_string(), Some(to.port()), reason);
            }
            Ok(to) => match inside.place(connections.len()) {
                Ok(place) => {
                    let connection = connection(Arc::clone(&inside), stream, to);
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(reason) => inside.refuse(&stream, to.ip().to_string(), Some(to.port()), reason),
            },
            Err(_) => inside.refuse(&stream, "unknown".to_owned(), None, "nobody knows where the connection was going"),
        }
    }
}

/// One connection, to its end.
async fn connection(inside: Arc<Inside>, stream: TcpStream, to: SocketAddr) {
    // Answers come in pieces that the client waits for.
    let _ = stream.set_nodelay(true);
    // Whoever takes nothing of an answer is given up; what reads and writes would wait for ever.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_MS);
    let Inside { hosts, egress, leases, reporter, limits, .. } = &*inside;
    if to.port() == DNS_PORT {
        return dns::serve_stream(stream, &inside, limits.idle).await;
    }
    let address = in_v4(to.ip());
    if let IpAddr::V4(behind) = address {
        let behind = SocketAddrV4::new(behind, to.port());
        if let Some(router) = hosts.service(behind) {
            reporter.served();
            // Over time it ends.
            let _ = timeout(limits.life, service(stream, router, egress, limits.idle)).await;
            return;
        }
        if behind == SocketAddrV4::new(DoorHost::PROXY.address, PROXY_PORT) {
            let whom = proxy::For::Anyone(Arc::clone(hosts));
            return proxy::serve(Arc::clone(egress), Heard::new(Box::new(stream)), whom, limits.idle).await;
        }
    }
    let name = match address {
        IpAddr::V4(address) => leases.lock().unwrap_or_else(PoisonError::into_inner).name(address),
        IpAddr::V6(_) => None,
    };
    let host = name.map_or(Host::Address(address), Host::Name);
    pass(Arc::clone(egress), Heard::new(Box::new(stream)), Goal { host, port: to.port() }, limits.idle).await;
}

async fn service(stream: TcpStream, service: Router, egress: &Egress, idle: Duration) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let service = service.clone();
        async {
            egress.pace().turn().await;
            service.oneshot(request.map(Body::new)).await
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(BUFFER).max_headers(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection through a door ended early");
    }
}
