//! The two sockets of the door, made inside the sandbox's network namespace.
//!
//! A socket belongs to the namespace that it was made in, wherever its descriptor goes. Both are non-blocking
//! from the start, but their users must not rely on it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use ostler_wire::Failure;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::nft::{DNS_PORT, TCP_PORT};
use crate::step::Step;

/// Connections that may wait for the host.
const BACKLOG: i32 = 1024;

/// The listener to which every TCP connection is redirected.
pub(super) fn tcp() -> Result<OwnedFd, Failure> {
    let socket = bound(SocketType::STREAM, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, TCP_PORT))?;
    listen(&socket, BACKLOG).step("listen", || format!("on port {TCP_PORT} of the namespace"))?;
    Ok(socket)
}

/// The socket to which every DNS query is redirected. On the unspecified address its answers would have the
/// wrong source.
pub(super) fn dns() -> Result<OwnedFd, Failure> {
    bound(SocketType::DGRAM, SocketAddrV4::new(Ipv4Addr::LOCALHOST, DNS_PORT))
}

fn bound(kind: SocketType, address: SocketAddrV4) -> Result<OwnedFd, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::INET, kind, flags, None).step("make socket", || format!("for {address}"))?;
    bind(&socket, &address).step("bind", || format!("to {address} in the namespace"))?;
    Ok(socket)
}
