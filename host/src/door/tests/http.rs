//! Plain HTTP on its way out: each request is decided by itself, and says the same everywhere.

use axum::extract::Request;
use axum::response::Redirect;

use super::fixtures::{Way, allowed, refused, rule, say, server, way, way_with, web};
use super::*;
use crate::egress::{Budget, Rule};

/// Answers with what came: method, address, Host and body.
fn echo() -> Router {
    Router::new().fallback(async |request: Request| {
        let (head, body) = request.into_parts();
        let headers: Vec<&str> = head.headers.keys().map(axum::http::HeaderName::as_str).collect();
        let headers = headers.join(",");
        let host = head.headers["host"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        format!("<{} {} {host} {headers} {}>", head.method, head.uri, String::from_utf8_lossy(&body))
    })
}

async fn echoing(change: impl FnOnce(&mut Rule)) -> (Way, u16) {
    let port = web(echo()).await;
    let allow = rule("a.example", |rule| {
        rule.ports = vec![port];
        change(rule);
    });
    (way(vec![allow, rule("b.example", |rule| rule.ports = vec![port])]), port)
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_anew() {
    let (mut way, port) = echoing(|rule| {
        rule.methods = vec!["GET".into()];
        rule.paths = vec!["/in".into()];
    })
    .await;
    let mut client = way.to_name("a.example", port).await;
    let host = format!("Host: a.example:{port}\r\n");
    // Pipelined: all at once.
    let answer = say(
        &mut client,
        &format!(
            "GET /in/1 HTTP/1.1\r\n{host}\r\nGET /in/2?q=/out HTTP/1.1\r\n{host}\r\nGET /out HTTP/1.1\r\n{host}\r\n\
             GET /in/3 HTTP/1.1\r\n{host}\r\n"
        ),
    )
    .await;
    assert!(answer.contains("<GET /in/1 a.example:") && answer.contains("<GET /in/2?q=/out "), "{answer}");
    assert!(
        answer.contains("403 Forbidden") && answer.contains("no rule for this host has this path (GET /out)"),
        "{answer}"
    );
    assert!(!answer.contains("/in/3"), "after a refusal the connection ends: {answer}");
    assert_eq!(way.event().await, allowed("a.example", port, Protocol::Http));
    let reason = "no rule for this host has this path (GET /out)";
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Http), reason));
    let mut client = way.to_name("a.example", port).await;
    let answer = say(&mut client, &format!("POST /in HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\nhi")).await;
    assert!(answer.contains("no rule for this host has this method (POST /in)"), "{answer}");
    // Both requests that got through went over one connection.
    assert_eq!(way.names.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_sent_on_is_written_anew() {
    let (way, port) = echoing(|_| {}).await;
    let mut client = way.to_name("a.example", port).await;
    let request = format!(
        "POST http://A.example.:{port}/x?y HTTP/1.1\r\nHost: a.EXAMPLE:{port}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         Upgrade: h2c\r\nTE: trailers\r\nProxy-Authorization: secret\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n\
         Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    );
    let answer = say(&mut client, &request).await;
    let expected = format!("<POST /x?y a.example:{port} host,x-kept,transfer-encoding hi>");
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split([' ', ',', '<', '>']).map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let body = answer.rsplit("\r\n\r\n").next().unwrap();
    assert_eq!(sorted(body), sorted(&expected), "{answer}");
}

#[tokio::test]
async fn a_request_that_says_two_things_gets_nowhere() {
    let (mut way, port) = echoing(|_| {}).await;
    let other = "the connection is to another place than its request, ";
    let table = [
        (format!("GET / HTTP/1.1\r\nHost: b.example:{port}\r\n"), format!("{other}b.example:{port}")),
        ("GET / HTTP/1.1\r\nHost: a.example\r\n".into(), format!("{other}a.example:80")),
        (format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"), format!("{other}127.0.0.1:{port}")),
        (
            format!("GET http://b.example:{port}/ HTTP/1.1\r\nHost: a.example:{port}\r\n"),
            "the request's address and its Host differ".into(),
        ),
        (
            format!("GET http://a.example:{port}/ HTTP/1.1\r\nHost: b.example:{port}\r\n"),
            "the request's address and its Host differ".into(),
        ),
        (
            format!("GET https://a.example:{port}/ HTTP/1.1\r\nHost: a.example:{port}\r\n"),
            "the request's address is not of plain http".into(),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\nHost: b.example:{port}\r\n"),
            "the request has not one Host".into(),
        ),
        ("GET / HTTP/1.1\r\n".into(), "the request has not one Host".into()),
        ("GET / HTTP/1.0\r\n".into(), "the request has not one Host".into()),
        (format!("GET / HTTP/1.1\r\nHost: u@a.example:{port}\r\n"), "the request's Host is malformed".into()),
        ("GET / HTTP/1.1\r\nHost: a.example:99999\r\n".into(), "the request's Host is malformed".into()),
        ("GET / HTTP/1.1\r\nHost: a.example:\r\n".into(), "the request's Host is malformed".into()),
    ];
    for (head, reason) in table {
        let mut client = way.to_name("a.example", port).await;
        let answer = say(&mut client, &format!("{head}\r\n")).await;
        assert!(answer.contains(" 421 ") && answer.ends_with(&format!("ostler: {reason}\n")), "{head}: {answer}");
        assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Http), &reason));
        way.open.door.turn_window();
    }
    // What hyper does not read at all.
    for head in [
        format!("POST / HTTP/1.1\r\nHost: a.example:{port}\r\nContent-Length: 5\r\nContent-Length: 6\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\nX: {}\r\n", "y".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\n{}", "X: y\r\n".repeat(100)),
        format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\nTransfer-Encoding: chunked, x\r\n"),
        format!("GET /a b HTTP/1.1\r\nHost: a.example:{port}\r\n"),
        format!("GET / HTTP/1.1\r\nHost : a.example:{port}\r\n"),
    ] {
        let mut client = way.to_name("a.example", port).await;
        let _ = client.write_all(format!("{head}\r\n").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = within(client.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains('<'), "{head}");
    }
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_with_every_method() {
    let (way, port) = echoing(|_| {}).await;
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let mut client = way.to_name("a.example", port).await;
        let head = format!("{method} / HTTP/1.1\r\nHost: a.example:{port}\r\nConnection: close\r\n");
        let answer = say(&mut client, &format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")).await;
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim();
        let expected = format!("<{method} / a.example:{port} host,transfer-encoding hi>");
        // To HEAD only the length is told.
        assert_eq!(length, expected.len().to_string(), "{answer}");
        let body = if method == "HEAD" { "" } else { "hi>" };
        assert!(answer.ends_with(body), "{answer}");
    }
    // One without a body stays without.
    let mut client = way.to_name("a.example", port).await;
    let answer =
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.ends_with(" host >"), "{answer}");
}

#[tokio::test]
async fn no_header_makes_another_method_or_path_of_what_a_rule_allowed() {
    let (mut way, port) = echoing(|rule| rule.methods = vec!["GET".into()]).await;
    for header in ["X-HTTP-Method-Override: DELETE", "x-original-url: /admin", "X-Rewrite-URL: /admin"] {
        let mut client = way.to_name("a.example", port).await;
        let answer = say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\n{header}\r\n\r\n")).await;
        let name = header.split(':').next().unwrap().to_ascii_lowercase();
        let reason =
            format!("the rule for this host is about methods or paths, and a header may mean others: `{name}`");
        assert!(answer.contains(" 403 ") && answer.contains(&reason), "{answer}");
        assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Http), &reason));
    }
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
    // Where every method and path is allowed, there is nothing to get around.
    let mut client = way.to_name("b.example", port).await;
    let answer = say(
        &mut client,
        &format!("GET / HTTP/1.1\r\nHost: b.example:{port}\r\nX-Original-URL: /x\r\nConnection: close\r\n\r\n"),
    )
    .await;
    assert!(answer.contains("x-original-url"), "{answer}");
}

#[tokio::test]
async fn a_redirect_is_followed_into_a_refusal() {
    let to_metadata = || async { Redirect::temporary("http://169.254.169.254/latest") };
    let port = web(Router::new().route("/", get(to_metadata))).await;
    let mut way = way(vec![rule("a.example", |rule| rule.ports = vec![port, 80])]);
    let mut client = way.to_name("a.example", port).await;
    let answer =
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.contains("location: http://169.254.169.254/latest"), "{answer}");
    assert_eq!(way.event().await, allowed("a.example", port, Protocol::Http));
    let mut client = way.to(([169, 254, 169, 254], 80)).await;
    let answer = say(&mut client, "GET /latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n").await;
    assert!(answer.contains("no rule allows this host"), "{answer}");
    // A name that leads there is refused by its address.
    way.names.set("a.example", &[&["169.254.169.254"]]);
    let mut client = way.to_name("a.example", 80).await;
    let answer = say(&mut client, "GET /latest HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(
        answer.contains(" 403 ") && answer.contains("ostler: its address is metadata of a cloud\n"),
        "what it resolves to is nobody's business in there: {answer}"
    );
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let (port, _connections) = server().await;
    let limits = DoorLimits { idle: Duration::from_millis(50), ..DoorLimits::default() };
    let rules = vec![rule("a.example", |rule| rule.ports = vec![port])];
    let way = way_with(rules, Budget::default(), Default::default(), limits);
    for beginning in ["", "G", "GET / HTTP/1.1\r\nHost: a.exa", "\u{16}"] {
        let mut client = way.to_name("a.example", port).await;
        let answer = say(&mut client, beginning).await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{beginning}: {answer}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_and_no_refusal() {
    let (port, connections) = server().await;
    drop(connections);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut way = way(vec![rule("a.example", |rule| rule.ports = vec![port, closed])]);
    let mut client = way.to_name("a.example", closed).await;
    let answer = say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a.example:{closed}\r\n\r\n")).await;
    assert!(
        answer.contains(" 502 ") && answer.contains("ostler: it could not be reached: Connection refused"),
        "{answer}"
    );
    let DoorEvent::Decided { decision, .. } = way.event().await else { panic!() };
    assert!(matches!(decision.verdict, Verdict::Failed { .. }), "{decision:?}");
}
