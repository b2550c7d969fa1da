//! From a host to a connection: resolved here, checked, and dialled at exactly the address that was checked.
//!
//! A name is resolved once for each connection. What answers may lie, change its mind or point inwards: no address is dialled
//! that was not looked at, and none is resolved a second time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lookup::{Lookups, Share};
use crate::egress::{Allowed, Host, refused_range};
use crate::telemetry::chain;

/// Longest wait for an answer of the resolver, and for a place to ask it.
const RESOLVE: Duration = Duration::from_secs(10);

/// Longest wait for one address, and most addresses that are tried.
const CONNECT: Duration = Duration::from_secs(10);
const TRIES: usize = 4;

/// `EAFNOSUPPORT`: the machine does not have this family of addresses.
const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The name has no address.
    #[error("the name could not be resolved")]
    Resolve(#[source] io::Error),
    /// Every address of it is refused.
    #[error("its address {address} is {kind}")]
    Range { address: IpAddr, kind: &'static str },
    /// Nobody answered.
    #[error("{address} could not be reached")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl DialError {
    /// Whether a rule of egress is the reason, and not the network.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Range { .. })
    }

    /// What the sandbox is told: the reason without the address, which says how the network outside is made.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Resolve(_) => chain(self),
            Self::Range { kind, .. } => format!("its address is {kind}"),
            Self::Connect { source, .. } => format!("it could not be reached: {source}"),
        }
    }
}

/// Connects to a host within what is allowed.
pub(super) async fn dial(
    (lookups, share): (&Arc<Lookups>, &Share),
    host: &Host,
    port: u16,
    allowed: &Allowed,
) -> Result<TcpStream, DialError> {
    let addresses = match host {
        _ if !allowed.addresses.is_empty() => allowed.addresses.clone(),
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
            timeout(RESOLVE, lookups.find(name, share)).await.unwrap_or_else(late).map_err(DialError::Resolve)?
        }
    };
    let mut last = DialError::Resolve(io::Error::other("it has no address"));
    let mut tries = 0;
    for address in addresses {
        if let Some(kind) = refused(address, allowed) {
            // What was tried and not reached says more than what was not tried.
            if tries == 0 {
                last = DialError::Range { address, kind };
            }
            continue;
        }
        if tries == TRIES {
            break;
        }
        tries += 1;
        let address = SocketAddr::new(address, port);
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        match timeout(CONNECT, TcpStream::connect(address)).await.unwrap_or_else(late) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = DialError::Connect { address, source },
        }
    }
    Err(last)
}

/// Why an address is not dialled.
fn refused(address: IpAddr, allowed: &Allowed) -> Option<&'static str> {
    let opened = allowed.private.iter().any(|range| range.contains(&address));
    refused_range(address, &allowed.private).or_else(|| if opened { None } else { own(address) })
}

/// Whether an address is the machine's own: only those can be bound. Where the machine lets programs bind any address, it
/// cannot be told, and none is dialled.
fn own(address: IpAddr) -> Option<&'static str> {
    static ANY: LazyLock<[bool; 2]> = LazyLock::new(|| {
        // Addresses for documentation, which no machine has.
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        [v4.into(), v6.into()].map(|address| bind(address).is_ok())
    });
    let [v4, v6] = *ANY;
    if (address.is_ipv4() && v4) || (address.is_ipv6() && v6) {
        return Some(
            "possibly this machine's own: net.ipv4.ip_nonlocal_bind or net.ipv6.ip_nonlocal_bind hides which are",
        );
    }
    judged(bind(address))
}

fn bind(address: IpAddr) -> io::Result<()> {
    UdpSocket::bind((address, 0)).map(drop)
}

/// What a try to bind an address says of it. One that failed for want of something, such as descriptors, says nothing.
fn judged(bound: io::Result<()>) -> Option<&'static str> {
    match bound {
        Ok(()) => Some("this machine's own"),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => None,
        // Without the family nothing of it can be reached either.
        Err(error) if error.raw_os_error() == Some(NO_FAMILY) => None,
        Err(_) => Some("possibly this machine's own: it cannot be told now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_judged_is_not_dialled() {
        let failed = |errno: rustix::io::Errno| judged(Err(errno.into()));
        for errno in [
            rustix::io::Errno::MFILE,
            rustix::io::Errno::NFILE,
            rustix::io::Errno::NOBUFS,
            rustix::io::Errno::ADDRINUSE,
        ] {
            assert!(failed(errno).is_some(), "{errno}");
        }
        assert_eq!(failed(rustix::io::Errno::ADDRNOTAVAIL), None);
        assert_eq!(failed(rustix::io::Errno::AFNOSUPPORT), None);
    }

    #[test]
    fn the_machines_own_addresses_are_known_and_others_are_not_taken_for_them() {
        assert_eq!(own(Ipv4Addr::LOCALHOST.into()), Some("this machine's own"));
        assert_eq!(own(Ipv4Addr::new(1, 1, 1, 1).into()), None);
        let none = Allowed { rule: String::new(), private: Vec::new(), addresses: Vec::new() };
        assert_eq!(refused(Ipv4Addr::LOCALHOST.into(), &none), Some("loopback"));
        let opened = Allowed { private: vec!["127.0.0.0/8".parse().unwrap()], ..none };
        assert_eq!(refused(Ipv4Addr::LOCALHOST.into(), &opened), None);
    }
}
