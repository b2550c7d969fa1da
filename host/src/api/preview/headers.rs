//! What of a request and of its answer is passed on between a browser and a sandbox. Pure.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Headers that are between two neighbours (RFC 9110, 7.6.1), and those that make sense only to the host itself.
const NOT_PASSED: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The protocol that a request or an answer switches to, such as `websocket`.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes out what is not passed on; what `Connection` names as well.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &header::CONNECTION).filter_map(|token| token.to_ascii_lowercase().parse().ok()).collect();
    for name in NOT_PASSED.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Makes the headers of a request those that the sandbox sees: as if its own browser asked for `localhost`. `is_token` tells
/// the host's own token, `cookie` is the name of ours.
pub(super) fn request(headers: &mut HeaderMap, port: u16, cookie: &str, is_token: impl Fn(&str) -> bool) {
    let switches_to = upgrade(headers);
    strip(headers);
    let asked = headers.remove(header::HOST);
    let local = HeaderValue::try_from(format!("localhost:{port}")).ok();
    let origin = |host: &HeaderValue| HeaderValue::try_from(format!("http://{}", host.to_str().ok()?)).ok();
    // Development servers compare the two.
    let own = asked.as_ref().and_then(origin);
    if own.is_some()
        && headers.get(header::ORIGIN) == own.as_ref()
        && let Some(local) = local.as_ref().and_then(origin)
    {
        headers.insert(header::ORIGIN, local);
    }
    if let Some(local) = local {
        headers.insert(header::HOST, local);
    }
    headers.remove(FORWARDED_HOST);
    if let Some(asked) = asked {
        headers.insert(FORWARDED_HOST, asked);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    let ours = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value
                .split_ascii_whitespace()
                .any(|word| is_token(word) || password(word).is_some_and(|word| is_token(&word)))
        })
    };
    if headers.get_all(header::AUTHORIZATION).iter().any(ours) {
        headers.remove(header::AUTHORIZATION);
    }
    without_cookie(headers, cookie);
    if let Some(protocol) = switches_to {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// The password in the credentials of the scheme `Basic`, as git sends the token.
fn password(credentials: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Makes the headers of an answer those that the browser sees. A cookie stays with this host name, a redirection to the
/// sandbox's own address becomes one to the preview.
pub(super) fn response(headers: &mut HeaderMap, port: u16) {
    let switches_to = upgrade(headers);
    strip(headers);
    headers.remove(header::STRICT_TRANSPORT_SECURITY);
    headers.remove(header::ALT_SVC);
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().filter_map(without_domain).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    let moved = headers.get(header::LOCATION).and_then(|value| local_path(value.to_str().ok()?, port));
    if let Some(path) = moved.and_then(|path| HeaderValue::try_from(path).ok()) {
        headers.insert(header::LOCATION, path);
    }
    if let Some(protocol) = switches_to {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

fn without_domain(cookie: &HeaderValue) -> Option<HeaderValue> {
    let text = cookie.to_str().ok()?;
    let is_domain = |part: &str| part.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("domain"));
    let (first, attributes) = text.split_once(';').map_or((text, ""), |(first, rest)| (first, rest));
    let kept: Vec<&str> = attributes.split(';').filter(|part| !part.trim().is_empty() && !is_domain(part)).collect();
    HeaderValue::try_from([&[first], kept.as_slice()].concat().join(";")).ok()
}

/// The path of an address that is the sandbox's own.
fn local_path(location: &str, port: u16) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let authority = uri.authority()?;
    let is_local = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
    let same = authority.port_u16().unwrap_or(80) == port;
    (is_local && same).then(|| uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
}

/// The values of a cookie; a browser may send several of one name.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn without_cookie(headers: &mut HeaderMap, name: &str) {
    let is_ours = |pair: &str| pair.trim().strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    let kept: Vec<String> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter(|pair| !pair.trim().is_empty() && !is_ours(pair))
        .map(|pair| pair.trim().to_owned())
        .collect();
    headers.remove(header::COOKIE);
    if let Some(value) = (!kept.is_empty()).then(|| HeaderValue::try_from(kept.join("; ")).ok()).flatten() {
        headers.insert(header::COOKIE, value);
    }
}

/// The path and query of an address without the key.
pub(super) fn without_key(uri: &Uri, parameter: &str) -> String {
    let is_key = |pair: &str| pair.strip_prefix(parameter).is_some_and(|rest| rest.starts_with('='));
    let kept: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|pair| !is_key(pair)).collect();
    // Two slashes at the beginning would name another host.
    let path = format!("/{}", uri.path().trim_start_matches('/'));
    match kept.join("&") {
        query if query.is_empty() => path,
        query => format!("{path}?{query}"),
    }
}
