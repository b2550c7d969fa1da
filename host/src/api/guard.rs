//! Who is answered at all: the right host name, no foreign web page, and the token.
//!
//! A host on a developer's machine is in reach of every web page that the developer's browser shows. So loopback is
//! not trusted for being loopback: a page that rebinds its name to us is refused for its `Host`, a page that calls us
//! across origins for its `Origin` or `Sec-Fetch-Site`, and both would lack the token. CORS is never answered.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ostler_protocol::ErrorCode;

use super::{ApiFailure, ApiState, ApiToken};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names this host answers to, and the web origins it lets in.
#[derive(Clone, Debug)]
pub struct HostGuard {
    listen: IpAddr,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl HostGuard {
    /// A guard for a host that listens on `listen`. `hosts` are further names it is reached by (without a port),
    /// `origins` the web origins that may call it, such as `https://ostler.example.org`.
    #[must_use]
    pub fn new(listen: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { listen: listen.ip(), hosts: lower(hosts), origins: lower(origins) }
    }

    /// Whether a request with these headers may come in.
    fn check(&self, headers: &HeaderMap, target: Option<&Authority>) -> Result<(), ApiFailure> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(refused("a request needs exactly one Host header"));
        };
        for name in [Some(text(host)), target.map(Authority::as_str)].into_iter().flatten() {
            if !self.answers_to(name) {
                return Err(refused(format!("this host does not answer to the name `{name}`"))
                    .with_hint("start it with `ostler up --allow-host NAME` if the name is yours"));
            }
        }
        let mut origins = headers.get_all(header::ORIGIN).iter().map(text).peekable();
        if origins.peek().is_none() {
            // Browsers leave `Origin` out of plain GETs and say where those come from in another header.
            let sites = headers.get_all(SEC_FETCH_SITE).iter().map(text);
            return match sites.into_iter().find(|site| !matches!(*site, "same-origin" | "none")) {
                Some(site) => Err(refused(format!("a web page of another site called (`{site}`)"))),
                None => Ok(()),
            };
        }
        match origins.find(|origin| !self.origins.contains(&origin.to_ascii_lowercase())) {
            Some(origin) => Err(refused(format!("a web page of the origin `{origin}` called"))
                .with_hint("start the host with `ostler up --allow-origin ORIGIN` if the page is yours")),
            None => Ok(()),
        }
    }

    /// The port is not compared: a rebound name cannot pose as an address or as `localhost`, and a forwarded port is
    /// a legitimate way to reach a host.
    fn answers_to(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        if self.hosts.contains(&name) {
            return true;
        }
        let local = self.listen.is_loopback() || self.listen.is_unspecified();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => address == self.listen || (local && address.is_loopback()),
            Err(_) => local && name == "localhost",
        }
    }
}

fn refused(message: impl Into<String>) -> ApiFailure {
    ApiFailure::new(ErrorCode::ForbiddenOrigin, message)
}

/// A header value as text; one with other bytes equals nothing that is allowed.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("\u{fffd}")
}

/// Lets a request through when its headers fit and it carries the token.
pub(super) async fn admit(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if let Err(failure) = state.guard.check(request.headers(), request.uri().authority()) {
        return failure.into_response();
    }
    let git = request.uri().path().starts_with("/git/");
    if authenticated(&state.token, request.headers(), git) {
        return next.run(request).await;
    }
    let words = if request.headers().contains_key(header::AUTHORIZATION) { "is not the one" } else { "is missing" };
    let mut response = ApiFailure::new(ErrorCode::Unauthenticated, format!("the API token {words}"))
        .with_hint("send `Authorization: Bearer TOKEN`; the token is in the file `token` of the host's data folder")
        .into_response();
    let challenge = if git { "Basic realm=\"ostler\"" } else { "Bearer realm=\"ostler\"" };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// Git clients know only Basic, with the token as the password. Elsewhere Basic is refused: a browser would keep
/// it and send it along with requests that no one meant to make.
fn authenticated(token: &ApiToken, headers: &HeaderMap, git: bool) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, credentials)) = text(value).split_once(' ') else { return false };
    if scheme.eq_ignore_ascii_case("bearer") {
        return token.matches(credentials.trim());
    }
    if !git || !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.as_deref().and_then(|pair| pair.split_once(':')).is_some_and(|(_, password)| token.matches(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str) -> HostGuard {
        HostGuard::new(listen.parse().unwrap(), &["Ostler.Example.org".to_owned()], &["https://app.example.org".into()])
    }

    #[test]
    fn only_own_names_are_answered() {
        let local = guard("127.0.0.1:7878");
        for name in ["127.0.0.1:7878", "localhost", "LOCALHOST:9", "[::1]:7878", "ostler.example.org", "127.0.0.2"] {
            assert!(local.answers_to(name), "{name}");
        }
        let foreign = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "a@localhost",
            "::1:x",
        ];
        for name in foreign {
            assert!(!local.answers_to(name), "{name}");
        }
        let public = guard("192.0.2.7:80");
        assert!(public.answers_to("192.0.2.7") && !public.answers_to("localhost") && !public.answers_to("127.0.0.1"));
    }

    #[test]
    fn an_origin_must_be_listed_and_cross_site_reads_are_refused() {
        let check = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("localhost:7878"));
            headers.insert(name, HeaderValue::from_static(value));
            guard("127.0.0.1:7878").check(&headers, None).is_ok()
        };
        assert!(check(header::ORIGIN, "https://app.example.org"));
        assert!(!check(header::ORIGIN, "http://localhost:7878"), "no page of ours exists yet");
        assert!(!check(header::ORIGIN, "null"));
        assert!(!check(SEC_FETCH_SITE, "cross-site") && !check(SEC_FETCH_SITE, "same-site"));
        assert!(check(SEC_FETCH_SITE, "none"));
    }

    #[test]
    fn the_target_of_a_proxy_request_and_a_second_host_header_count_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let target: Authority = "evil.example".parse().unwrap();
        assert!(guard("127.0.0.1:1").check(&headers, Some(&target)).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(guard("127.0.0.1:1").check(&headers, None).is_err());
        assert!(guard("127.0.0.1:1").check(&HeaderMap::new(), None).is_err());
    }
}
