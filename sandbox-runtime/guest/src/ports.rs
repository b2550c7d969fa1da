//! Which TCP ports something in the sandbox listens on, and whose they are: `/proc/net/tcp`, `/proc/net/tcp6`, and the
//! descriptors of each process.
//!
//! Everything read here was influenced by the sandbox's processes, and is bounded. Whose a port is cannot always be told: the
//! descriptors of a process with another user are not to be seen, and a socket may belong to nobody in here.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ostler_wire::Failure;
use ostler_wire::guest::{MAX_PORTS, Port, Reply};

use crate::failure::failed;

/// Bytes read of each table: about 7,000 sockets.
const TABLE: u64 = 1024 * 1024;

/// Processes and descriptors of each that are looked at.
const PROCESSES: usize = 4096;
const DESCRIPTORS: usize = 4096;

/// The state `TCP_LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// Lists the ports.
pub(crate) fn list() -> Result<Reply, Failure> {
    let mut found = Vec::new();
    for name in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let mut text = String::new();
        match std::fs::File::open(name).and_then(|file| file.take(TABLE).read_to_string(&mut text)) {
            Ok(_) => found.extend(text.lines().filter_map(parse)),
            // A kernel without the family has no table.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
                return Err(failed("read", errno, name));
            }
        }
    }
    found.sort();
    found.dedup_by_key(|row| (row.port, row.address));
    let truncated = found.len() > MAX_PORTS;
    found.truncate(MAX_PORTS);
    let owners = if found.is_empty() { HashMap::new() } else { owners() };
    let ports = found
        .into_iter()
        .map(|row| Port { port: row.port, address: row.address, process: owners.get(&row.inode).cloned() })
        .collect();
    Ok(Reply::Ports { ports, truncated })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    port: u16,
    address: IpAddr,
    inode: u64,
}

/// Reads `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …` of a listening socket.
fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some(Row { port: u16::from_str_radix(port, 16).ok()?, address: parse_address(address)?, inode })
}

/// Words of 32 bits in the byte order of the machine, each as eight digits.
fn parse_address(digits: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    if !digits.is_ascii() || !matches!(digits.len(), 8 | 32) {
        return None;
    }
    for (index, place) in bytes.chunks_exact_mut(4).enumerate().take(digits.len() / 8) {
        let word = u32::from_str_radix(digits.get(index * 8..index * 8 + 8)?, 16).ok()?;
        place.copy_from_slice(&word.to_ne_bytes());
    }
    Some(match digits.len() {
        8 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => Ipv6Addr::from(bytes).into(),
    })
}

/// The processes that have sockets open, by the number of the socket. Of several that share one, the first.
fn owners() -> HashMap<u64, (i32, String)> {
    let mut owners = HashMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return owners };
    let mut pids: Vec<i32> =
        processes.take(PROCESSES).filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let sockets: Vec<u64> = descriptors
            .take(DESCRIPTORS)
            .filter_map(|entry| {
                let target = std::fs::read_link(entry.ok()?.path()).ok()?;
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            })
            .collect();
        if sockets.is_empty() {
            continue;
        }
        // At most 15 bytes, which a process chooses for itself.
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        for socket in sockets {
            owners.entry(socket).or_insert_with(|| (pid, name.clone()));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_and_others_are_not() {
        let v4 =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0";
        let expected = Row { port: 8080, address: Ipv4Addr::LOCALHOST.into(), inode: 4242 };
        assert_eq!(parse(v4), Some(expected));
        assert_eq!(parse(&v4.replace(" 0A ", " 01 ")), None);
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 7 1";
        assert_eq!(parse(v6), Some(Row { port: 80, address: Ipv6Addr::LOCALHOST.into(), inode: 7 }));
        for broken in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            &v4[..30],
            "0: é:é 0 0A 0 0 0 0 0 7",
            "0: 0100007F:99999 0 0A 0 0 0 0 0 7",
        ] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_port_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Ok(Reply::Ports { ports, .. }) = list() else { panic!("no listing") };
        let found = ports.iter().find(|row| row.port == port).unwrap();
        assert_eq!(found.address, IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(found.process.as_ref().unwrap().0, i32::try_from(std::process::id()).unwrap());
    }
}
