//! The sockets on which the host serves its API.
//!
//! Browsers take every name below `localhost` for both addresses of loopback, and may try either first. Whoever listens on the other one
//! is sent the key of a preview. So the host takes both, or makes no previews.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::AppError;

/// Tries to find a port that is free on both, where any will do.
const TRIES: usize = 16;

/// What the host listens on.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The address that was asked for.
    pub(super) main: TcpListener,
    /// The other address of loopback.
    pub(super) twin: Option<TcpListener>,
    /// Where another program listens instead.
    pub(super) stranger: Option<SocketAddr>,
}

/// Listens.
pub(super) fn bind(listen: SocketAddr) -> Result<Listeners, AppError> {
    let failed = |error: io::Error| {
        let message = format!("cannot listen on {listen}");
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another program uses the port; end it, or choose another --listen address",
            _ => "choose another --listen address",
        };
        AppError::new(message, hint).because(error)
    };
    let mut listeners = both(listen).map_err(failed)?;
    for _ in 1..TRIES {
        if listen.port() != 0 || listeners.stranger.is_none() {
            break;
        }
        listeners = both(listen).map_err(failed)?;
    }
    Ok(listeners)
}

fn both(listen: SocketAddr) -> io::Result<Listeners> {
    let open = |address: SocketAddr| {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    let main = open(listen)?;
    let Some(other) = twin(main.local_addr()?) else { return Ok(Listeners { main, twin: None, stranger: None }) };
    match open(other) {
        Ok(listener) => Ok(Listeners { main, twin: Some(listener), stranger: None }),
        // Nobody can listen there: the machine has no such address.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable || no_family(&error) => {
            Ok(Listeners { main, twin: None, stranger: None })
        }
        Err(_) => Ok(Listeners { main, twin: None, stranger: Some(other) }),
    }
}

fn no_family(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::AFNOSUPPORT)
}

/// The address of loopback that an address does not cover.
fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        // Elsewhere nothing of loopback leads here, and previews are for whoever forwards the port.
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_loopback_are_taken_on_one_port() {
        let listeners = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let main = listeners.main.local_addr().unwrap();
        match &listeners.twin {
            Some(listener) => {
                assert_eq!(listener.local_addr().unwrap(), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), main.port()))
            }
            // Without IPv6 nobody else can have it either.
            None => assert!(TcpListener::bind("[::1]:0").is_err()),
        }
        assert_eq!(listeners.stranger, None);
    }

    #[test]
    fn another_program_on_the_other_address_is_seen() {
        let Ok(theirs) = TcpListener::bind("[::1]:0") else {
            return assert_eq!(twin("[::1]:1".parse().unwrap()), Some("127.0.0.1:1".parse().unwrap()));
        };
        let address = theirs.local_addr().unwrap();
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
        let listeners = bind(listen).unwrap();
        assert_eq!((listeners.twin.is_none(), listeners.stranger), (true, Some(address)));
    }

    #[test]
    fn the_other_address_is_that_of_loopback() {
        for (address, expected) in [
            ("127.0.0.1:1", Some("[::1]:1")),
            ("0.0.0.0:1", Some("[::1]:1")),
            ("[::1]:1", Some("127.0.0.1:1")),
            ("[::]:1", None),
            ("192.0.2.1:1", None),
        ] {
            let expected = expected.map(|expected| expected.parse().unwrap());
            assert_eq!(twin(address.parse().unwrap()), expected, "{address}");
        }
    }
}
