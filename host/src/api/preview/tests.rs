//! Who may look at a preview, and what is passed on.

use axum::http::{HeaderName, HeaderValue};

use super::*;

fn previews() -> Previews {
    Previews::new(7878, Clock::from_fn(|| 1000))
}

fn session(number: u128) -> SessionId {
    SessionId::from_ulid(ulid::Ulid::from_parts(1, number))
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[test]
fn only_the_host_name_of_a_preview_is_one() {
    let name = |host: &str, target: &str| preview_name(&headers(&[("host", host)]), &target.parse().unwrap());
    assert_eq!(name("p3000-0123456789.localhost:7878", "/x"), Some("p3000-0123456789".into()));
    assert_eq!(name("P3000-0123456789.LOCALHOST", "/"), Some("p3000-0123456789".into()));
    for host in [
        "localhost:7878",
        "127.0.0.1",
        "p3000-0123456789.localhost.evil.example",
        "p3000-0123456789.evil.example",
        "x.p3000-0123456789.localhost",
        "p3000-012345678.localhost",
        "p99999-0123456789.localhost",
        "a@p3000-0123456789.localhost",
        "",
    ] {
        assert_eq!(name(host, "/"), None, "{host}");
    }
    assert_eq!(name("p3000-0123456789.localhost", "http://localhost/v1/sessions"), None);
    let twice = headers(&[("host", "p3000-0123456789.localhost"), ("host", "localhost")]);
    assert_eq!(preview_name(&twice, &Uri::from_static("/")), None);
}

#[test]
fn a_preview_is_opened_with_its_key_only() {
    let previews = previews();
    let view = previews.open(session(1), 3000).unwrap();
    let preview = previews.find(&view.id).unwrap();
    let (address, key) = view.url.rsplit_once('=').unwrap();
    assert_eq!(address, format!("http://{}.localhost:7878/?ostler_preview", view.id));
    let admitted = |path: &str, cookie: &str| {
        let request = Request::builder().uri(path).header("cookie", cookie).body(Body::empty()).unwrap();
        admit(&preview, &view.id, &request)
    };
    let name = cookie_name(&view.id);
    assert!(admitted("/", "").is_none());
    assert!(admitted("/", &format!("{name}={}", "0".repeat(64))).is_none());
    assert!(admitted("/", &format!("other={key}")).is_none());
    assert!(admitted("/?ostler_preview=", &format!("{name}={key}")).is_none(), "a wrong key counts before a cookie");
    assert!(matches!(admitted("/", &format!("a=b; {name}=x; {name}={key}")), Some(Admitted::ByCookie)));
    match admitted(&format!("//evil.example/a?x=1&ostler_preview={key}&y=2"), "") {
        Some(Admitted::ByKey { path, cookie }) => {
            assert_eq!(path, "/evil.example/a?x=1&y=2");
            assert_eq!(cookie, format!("{name}={key}; Path=/; HttpOnly; SameSite=Lax"));
        }
        _ => panic!("the key opens it"),
    }
}

#[test]
fn previews_are_bounded_listed_ended_and_expire() {
    let now = Arc::new(std::sync::atomic::AtomicU64::new(1000));
    let clock = Arc::clone(&now);
    let previews = Previews::new(1, Clock::from_fn(move || clock.load(std::sync::atomic::Ordering::Relaxed)));
    let first = previews.open(session(1), 1).unwrap();
    for _ in 1..MAX_PREVIEWS {
        previews.open(session(1), 1).unwrap();
    }
    assert_eq!(previews.open(session(1), 1).unwrap_err().public.code, ErrorCode::Overloaded);
    previews.open(session(2), 1).unwrap();
    assert_eq!(previews.list(session(1)).len(), MAX_PREVIEWS);
    assert_eq!(previews.close(session(2), &first.id), None, "it is of another session");
    assert_eq!(previews.close(session(1), &first.id), Some(first.clone()));
    assert!(previews.find(&first.id).is_none());
    now.store(1000 + 8 * 3600 * 1000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((previews.list(session(1)), previews.list(session(2))), (vec![], vec![]));
}

#[test]
fn no_preview_is_made_where_a_browser_would_bring_the_key_to_another_program() {
    let previews = previews().unless(Some("[::1]:7878".parse().unwrap()));
    let refused = previews.open(session(1), 3000).unwrap_err().public;
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("another program listens on [::1]:7878"), "{}", refused.message);
}

#[test]
fn the_sandbox_sees_neither_token_nor_key_and_a_request_of_its_own() {
    let mut seen = headers(&[
        ("host", "p3000-0123456789.localhost:7878"),
        ("origin", "http://p3000-0123456789.localhost:7878"),
        ("authorization", "Bearer secret"),
        ("cookie", "a=b; ours=key; c=d"),
        ("connection", "keep-alive, x-custom"),
        ("x-custom", "1"),
        ("proxy-authorization", "Basic x"),
        ("x-forwarded-host", "forged"),
        ("accept", "*/*"),
    ]);
    headers::request(&mut seen, 3000, "ours", |text| text == "secret");
    // `x:secret`, as git writes it.
    let mut basic = headers(&[("authorization", "Basic eDpzZWNyZXQ=")]);
    headers::request(&mut basic, 3000, "ours", |text| text == "secret");
    assert!(!basic.contains_key("authorization"));
    let expected = [
        "accept: */*",
        "cookie: a=b; c=d",
        "host: localhost:3000",
        "origin: http://localhost:3000",
        "x-forwarded-host: p3000-0123456789.localhost:7878",
        "x-forwarded-proto: http",
    ];
    assert_eq!(shown(&seen), expected);
    let mut others =
        headers(&[("authorization", "Bearer theirs"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
    headers::request(&mut others, 3000, "ours", |text| text == "secret");
    let expected =
        ["authorization: Bearer theirs", "connection: upgrade", "upgrade: websocket", "x-forwarded-proto: http"];
    assert_eq!(shown(&others).into_iter().filter(|line| !line.starts_with("host")).collect::<Vec<_>>(), expected);
}

#[test]
fn what_the_sandbox_answers_stays_under_its_name() {
    let mut seen = headers(&[
        ("set-cookie", "a=b; Domain=localhost; Path=/; domain = x"),
        ("set-cookie", "c=d"),
        ("location", "http://localhost:3000/login?x=1"),
        ("strict-transport-security", "max-age=1"),
        ("transfer-encoding", "chunked"),
        ("x-frame-options", "DENY"),
    ]);
    headers::response(&mut seen, 3000);
    let expected = ["location: /login?x=1", "set-cookie: a=b; Path=/", "set-cookie: c=d", "x-frame-options: DENY"];
    assert_eq!(shown(&seen), expected);
    let mut elsewhere = headers(&[("location", "https://example.org/login")]);
    headers::response(&mut elsewhere, 3000);
    assert_eq!(shown(&elsewhere), ["location: https://example.org/login"]);
}
