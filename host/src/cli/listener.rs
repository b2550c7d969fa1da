//! Who listens on this machine, as the kernel's tables tell everybody.
//!
//! A host that was killed leaves word of its address behind, and anybody may listen there until it comes back. Its token must
//! not go to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a socket that listens, in the tables.
const LISTENS: &str = "0A";

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where; an unspecified address means everywhere.
    pub address: SocketAddr,
    /// The user that made it.
    pub uid: u32,
    /// Its inode, as the links of `/proc/PID/fd` have it.
    pub inode: String,
}

/// Every TCP socket that listens in this network namespace. None where the tables cannot be read.
pub fn listeners() -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(parse)).collect()
}

/// The user that listens at an address, where it is neither `owner` nor root.
pub fn stranger(listeners: &[Listener], address: SocketAddr, owner: u32) -> Option<u32> {
    let answers = |listener: &&Listener| {
        listener.address.port() == address.port()
            && (listener.address.ip().is_unspecified() || listener.address.ip() == address.ip())
    };
    listeners.iter().filter(answers).map(|listener| listener.uid).find(|uid| ![0, owner].contains(uid))
}

fn parse(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    (state == LISTENS).then_some(Listener { address, uid: uid.parse().ok()?, inode: inode.to_owned() })
}

/// An address of the tables: numbers of 32 bits in the machine's order.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => word(0).map(|bytes| Ipv4Addr::from(bytes).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_here_is_seen_with_its_user() {
        let own = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listening) = std::net::TcpListener::bind(address) else { continue };
            let address = listening.local_addr().unwrap();
            let found: Vec<_> = listeners().into_iter().filter(|found| found.address == address).collect();
            assert_eq!(found.iter().map(|found| found.uid).collect::<Vec<_>>(), [own], "{address}");
        }
    }

    #[test]
    fn a_line_of_the_table_is_read_only_where_it_listens() {
        let line = |state: &str| format!("  1: 0100007F:1EC6 00000000:0000 {state} 0:0 00:0 0  998 0 2222 1");
        let address = "127.0.0.1:7878".parse().unwrap();
        assert_eq!(parse(&line("0A")), Some(Listener { address, uid: 998, inode: "2222".into() }));
        assert_eq!(parse(&line("01")), None);
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn only_the_owner_and_root_may_listen_where_a_host_said_it_is() {
        let at = |address: &str, uid| Listener { address: address.parse().unwrap(), uid, inode: String::new() };
        let here = "127.0.0.1:7878".parse().unwrap();
        for (listeners, expected) in [
            (vec![], None),
            (vec![at("127.0.0.1:7878", 998)], None),
            (vec![at("127.0.0.1:7878", 0)], None),
            (vec![at("127.0.0.1:7879", 1000), at("127.0.0.2:7878", 1000), at("[::1]:7878", 1000)], None),
            (vec![at("127.0.0.1:7878", 1000)], Some(1000)),
            (vec![at("0.0.0.0:7878", 1000)], Some(1000)),
            (vec![at("[::]:7878", 1000)], Some(1000)),
        ] {
            assert_eq!(stranger(&listeners, here, 998), expected, "{listeners:?}");
        }
    }
}
