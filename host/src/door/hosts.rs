//! The host names that exist behind the door, each with a fixed address and a service.
//!
//! The addresses are from 198.18.0.0/15, which is set aside for test networks (RFC 2544) and routed nowhere. They never
//! leave the sandbox's namespace: a connection to one ends at the door like every other.

use std::net::{Ipv4Addr, SocketAddrV4};

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{StatusCode, uri::Authority};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use crate::egress::{Host, HostName};

/// Port of every service: inside the door there is nothing to encrypt against.
const PORT: u16 = 80;

/// Port of the proxy: the customary one.
pub(super) const PROXY_PORT: u16 = 3128;

/// A name that exists only behind the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorHost {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
}

impl DoorHost {
    /// The git remote of the session's repository.
    pub const GIT: Self = Self { name: "git.ostler.internal", address: Ipv4Addr::new(198, 18, 0, 1) };
    /// The proxy, for programs that want one. Nothing passes it that would not pass without.
    pub const PROXY: Self = Self { name: "proxy.ostler.internal", address: Ipv4Addr::new(198, 18, 0, 2) };
}

/// What one sandbox finds behind its door.
#[derive(Clone, Debug, Default)]
pub struct DoorHosts {
    hosts: Vec<(DoorHost, Router)>,
}

impl DoorHosts {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a service behind a name. Requests for any other name never reach the service.
    #[must_use]
    pub fn with(mut self, host: DoorHost, service: Router) -> Self {
        let guard = from_fn(move |request: Request, next: Next| check_name(host.name, request, next));
        self.hosts.push((host, service.layer(guard)));
        self
    }

    /// Address of a name.
    pub(super) fn resolve(&self, name: &HostName) -> Option<Ipv4Addr> {
        let mut all = self.hosts.iter().map(|(host, _)| host).chain([&DoorHost::PROXY]);
        all.find(|host| host.name == name.as_str()).map(|host| host.address)
    }

    /// Service behind a name and port.
    pub(super) fn by_name(&self, host: &Host, port: u16) -> Option<Router> {
        let Host::Name(name) = host else { return None };
        self.service(SocketAddrV4::new(self.resolve(name)?, port))
    }

    /// Service behind an address.
    pub(super) fn service(&self, destination: SocketAddrV4) -> Option<Router> {
        let meant = |host: &DoorHost| SocketAddrV4::new(host.address, PORT) == destination;
        self.hosts.iter().find(|(host, _)| meant(host)).map(|(_, service)| service.clone())
    }
}

/// Lets a request through when every name in it is the service's own.
async fn check_name(expected: &'static str, request: Request, next: Next) -> Response {
    let mut named = request.headers().get_all(HOST).iter().map(|value| Authority::try_from(value.as_bytes()).ok());
    let (host, more) = (named.next().flatten(), named.next());
    let own = |authority: &Authority| {
        authority.host().eq_ignore_ascii_case(expected)
            && authority.port_u16().is_none_or(|port| port == PORT)
            && !authority.as_str().contains('@')
    };
    if host.as_ref().is_some_and(own) && more.is_none() && request.uri().authority().is_none_or(own) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, format!("only {expected} is served here\n")).into_response()
}
