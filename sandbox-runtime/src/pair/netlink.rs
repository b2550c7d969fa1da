//! Just enough netlink: encoding requests, sending them, and reading the acknowledgements.
//!
//! A pure encoder for a handful of fixed messages costs less than a library or running `ip` and `nft` for every
//! sandbox. Numbers are from the kernel's `uapi/linux/{netlink,rtnetlink}.h`. This module owns the transport
//! and the loopback interface; the rules are in [`super::nft`].

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ostler_wire::{Failure, FailureKind};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::step::{Step, failure};

/// The sandbox's own address, also the source of everything that leaves by the default route on `lo`.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);

/// The same in IPv6: a unique local one (RFC 4193) whose number spells the project.
pub(super) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x7374, 0x6c65, 0x0072, 0, 0, 0, 1);

/// Index of `lo` in a fresh network namespace.
const LOOPBACK: u32 = 1;

const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;

/// A netlink message under construction; finished ones are concatenated in a batch.
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Starts a message of a type with flags besides `NLM_F_REQUEST`, followed by its fixed header.
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags as u16 | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Appends an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
        self
    }

    /// Appends a text attribute, with its final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends a 32-bit number in network order, as netfilter wants it.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends an attribute that holds others.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// The encoded message, with its length and sequence number.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Opens a netlink socket in the caller's network namespace; without a protocol it is for routing.
pub(super) fn open(protocol: Option<Protocol>) -> Result<OwnedFd, Failure> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
        .step("open netlink", || "in the new network namespace".to_owned())
}

/// Sends `bytes` and reads `acknowledgements`. The kernel answers before `send` returns, so nothing is waited for.
pub(super) fn transact(socket: &OwnedFd, op: &str, bytes: &[u8], acknowledgements: usize) -> Result<(), Failure> {
    send(socket, bytes, SendFlags::empty()).step(op, || "send netlink request".to_owned())?;
    let mut seen = 0;
    let mut buffer = vec![0; 16 * 1024];
    while seen < acknowledgements {
        let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)
            .step(op, || format!("read netlink answer {} of {acknowledgements}", seen + 1))?;
        seen += count(op, &buffer[..length])?;
    }
    Ok(())
}

/// Counts the acknowledgements in a datagram; the first refusal is an error.
fn count(op: &str, mut datagram: &[u8]) -> Result<usize, Failure> {
    let mut seen = 0;
    while let Some((header, _)) = datagram.split_at_checked(HEADER) {
        let number = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or_default();
        let length = number(0) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(error) = datagram.get(HEADER..HEADER + 4).filter(|_| i32::from(kind) == libc::NLMSG_ERROR) else {
            return Err(failure(FailureKind::System, op, format!("unexpected netlink answer of type {kind}")));
        };
        match error.try_into().map(i32::from_ne_bytes).unwrap_or_default() {
            0 => seen += 1,
            refused => {
                let request = number(8);
                return Err(std::io::Error::from_raw_os_error(-refused))
                    .step(op, || format!("netlink request {request}"));
            }
        }
        datagram = datagram.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(seen)
}

/// Brings `lo` up, gives it [`ADDRESS`] and the default route, so that every destination has a way to be redirected.
pub(super) fn bring_up_loopback() -> Result<(), Failure> {
    let up = (libc::IFF_UP as u32).to_ne_bytes();
    let link: Vec<u8> = [[0; 4], LOOPBACK.to_ne_bytes(), up, up].concat();
    let route = route(libc::AF_INET, libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK, libc::RTN_UNICAST);
    let mut requests = vec![Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link)];
    requests.extend(address_and_route(libc::AF_INET, &ADDRESS.octets(), &route));
    send_all("bring up loopback", requests)
}

/// Does the same for IPv6, and says whether the machine has it. A route through `lo` must be a local one there.
pub(super) fn bring_up_ipv6() -> Result<bool, Failure> {
    let route = route(libc::AF_INET6, libc::RT_TABLE_LOCAL, libc::RT_SCOPE_UNIVERSE, libc::RTN_LOCAL);
    let requests = address_and_route(libc::AF_INET6, &ADDRESS_V6.octets(), &route);
    match send_all("bring up IPv6", requests.into()) {
        Ok(()) => Ok(true),
        // The kernel has none, or it is switched off: then nothing can be sent over it either.
        Err(failed) if matches!(failed.errno, libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// The fixed header of a default route.
fn route(family: i32, table: u8, scope: u8, kind: u8) -> [u8; 12] {
    [family as u8, 0, 0, 0, table, libc::RTPROT_STATIC, scope, kind, 0, 0, 0, 0]
}

fn address_and_route(family: i32, address: &[u8], route: &[u8]) -> [Message; 2] {
    // Without a search for others who have the address: there are none, and it could not be used meanwhile.
    let mut header = vec![family as u8, address.len() as u8 * 8, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE];
    header.extend(LOOPBACK.to_ne_bytes());
    let make = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    [
        Message::new(libc::RTM_NEWADDR, make, &header)
            .attribute(libc::IFA_LOCAL, address)
            .attribute(libc::IFA_ADDRESS, address),
        Message::new(libc::RTM_NEWROUTE, make, route)
            .attribute(libc::RTA_OIF, &LOOPBACK.to_ne_bytes())
            .attribute(libc::RTA_PREFSRC, address),
    ]
}

fn send_all(op: &str, requests: Vec<Message>) -> Result<(), Failure> {
    let count = requests.len();
    let bytes: Vec<u8> = (1..).zip(requests).flat_map(|(sequence, request)| request.finish(sequence)).collect();
    transact(&open(None)?, op, &bytes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nesting_counts_its_content() {
        let message = Message::new(7, libc::NLM_F_ACK, &[1, 2, 3, 4])
            .nested(5, |inner| inner.text(1, "ab").number(2, 1))
            .finish(9);
        assert_eq!(message.len(), 16 + 4 + 4 + 8 + 8);
        assert_eq!(message[..4], 40u32.to_ne_bytes());
        assert_eq!(message[20..24], [[20, 0], (5 | NESTED).to_ne_bytes()].concat());
        assert_eq!(message[24..32], [7, 0, 1, 0, b'a', b'b', 0, 0]);
        assert_eq!(message[36..40], [0, 0, 0, 1]);
    }

    #[test]
    fn a_refusal_is_an_error_and_names_its_request() {
        let mut answer = Message::new(libc::NLMSG_ERROR as u16, 0, &[]).0;
        answer.extend((-libc::EPERM).to_ne_bytes());
        answer.extend([0; 16]);
        let answer = Message(answer).finish(3);
        let refused = count("test", &answer).unwrap_err();
        assert_eq!((refused.errno, refused.detail.as_str()), (libc::EPERM, "netlink request 3"));
    }
}
