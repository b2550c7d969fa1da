//! The sockets of the door, made inside the sandbox's network namespace.
//!
//! A socket belongs to the namespace that it was made in, wherever its descriptor goes. All are non-blocking
//! from the start, but their users must not rely on it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use ostler_wire::Failure;
use rustix::net::sockopt::set_ipv6_v6only;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::nft::{DNS_PORT, TCP_PORT};
use crate::step::Step;

/// Connections that may wait for the host.
const BACKLOG: i32 = 1024;

/// The listener to which every TCP connection is redirected, of both families where there is IPv6.
pub(super) fn tcp(ipv6: bool) -> Result<OwnedFd, Failure> {
    let any: SocketAddr =
        if ipv6 { (Ipv6Addr::UNSPECIFIED, TCP_PORT).into() } else { (Ipv4Addr::UNSPECIFIED, TCP_PORT).into() };
    let socket = bound(SocketType::STREAM, any)?;
    listen(&socket, BACKLOG).step("listen", || format!("on port {TCP_PORT} of the namespace"))?;
    Ok(socket)
}

/// The socket to which DNS queries over IPv4 are redirected. On the unspecified address its answers would have the
/// wrong source.
pub(super) fn dns() -> Result<OwnedFd, Failure> {
    bound(SocketType::DGRAM, (Ipv4Addr::LOCALHOST, DNS_PORT).into())
}

/// The same over IPv6.
pub(super) fn dns_v6() -> Result<OwnedFd, Failure> {
    bound(SocketType::DGRAM, (Ipv6Addr::LOCALHOST, DNS_PORT).into())
}

fn bound(kind: SocketType, address: SocketAddr) -> Result<OwnedFd, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, flags, None).step("make socket", || format!("for {address}"))?;
    if address.is_ipv6() {
        // Whatever the machine's default is.
        set_ipv6_v6only(&socket, false).step("open to both families", || address.to_string())?;
    }
    bind(&socket, &address).step("bind", || format!("to {address} in the namespace"))?;
    Ok(socket)
}
