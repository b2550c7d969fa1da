//! Host side of a sandbox's one door.
//!
//! ```text
//!  sandbox's network namespace              host
//!  every TCP connection ─redirected─► tcp ──► 198.18.0.1:80 ──► git.ostler.internal (forge, Access::Session)
//!                                       └───► anything else ──► reset, reported
//!  every DNS query ──────redirected─► dns ──► names of ours: their address; all others: NXDOMAIN, reported
//! ```
//!
//! The two sockets were made inside the namespace by the launcher, so that no process of the sandbox has a part in
//! them. Owns who is served behind which name, and the limits. Egress is closed: nothing is passed on to the outside.
//! Does not know what the services do.

mod dns;
mod hosts;
mod report;
mod tcp;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::forge::{Access, Forge, git_router};

use report::Reporter;

pub use hosts::{DoorHost, DoorHosts};
pub use report::{Attempt, DoorCounters, DoorEvent};
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
    /// Serves the door of a session's sandbox: git, with what `access` allows. `tcp` is a listener and `dns` a UDP socket,
    /// both made in the sandbox's network namespace. To be called within the runtime.
    pub fn serve(tcp: OwnedFd, dns: OwnedFd, forge: Forge, access: Access) -> Result<Self, DoorError> {
        let hosts = DoorHosts::new().with(DoorHost::GIT, git_router(forge, access));
        Self::open(tcp, dns, hosts, DoorOptions::default())
    }

    /// Serves any hosts behind a door. To be called within the runtime.
    pub fn open(tcp: OwnedFd, dns: OwnedFd, hosts: DoorHosts, options: DoorOptions) -> Result<Self, DoorError> {
        let listener = listener(tcp)?;
        let socket = datagram(dns)?;
        let (hosts, reporter) = (Arc::new(hosts), Arc::new(Reporter::new()));
        let closed = CancellationToken::new();
        let tcp = tcp::serve(listener, Arc::clone(&hosts), Arc::clone(&reporter), options.limits, options.destination);
        tokio::spawn(closed.clone().run_until_cancelled_owned(tcp));
        tokio::spawn(closed.clone().run_until_cancelled_owned(dns::serve(socket, hosts, Arc::clone(&reporter))));
        Ok(Self { reporter, _open: closed.drop_guard() })
    }

    /// What the sandbox is refused from now on. A slow reader loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<DoorEvent> {
        self.reporter.subscribe()
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

fn datagram(descriptor: OwnedFd) -> Result<UdpSocket, DoorError> {
    let error = |source| DoorError::Socket { which: "DNS", source };
    let socket = Socket::from(descriptor);
    if socket.r#type().ok() != Some(Type::DGRAM) || !internet(&socket) {
        return Err(DoorError::Descriptor { which: "DNS", expected: "a UDP socket" });
    }
    socket.set_nonblocking(true).map_err(error)?;
    UdpSocket::from_std(socket.into()).map_err(error)
}

fn internet(socket: &Socket) -> bool {
    socket.domain().ok() == Some(Domain::IPV4)
}

#[cfg(test)]
mod tests;
