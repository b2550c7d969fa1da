//! CONNECT and absolute addresses over the proxy behind the door: nothing passes it that would not pass without.

use super::fixtures::{Way, refused, rule, say, server, way, way_with};
use super::tls::greeting;
use super::*;
use crate::egress::Budget;

/// Opens a tunnel and returns it when it is there.
async fn tunnel(way: &Way, to: &str) -> TcpStream {
    let mut client = way.to_proxy().await;
    client.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(client.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    client
}

#[tokio::test]
async fn what_is_spoken_in_a_tunnel_must_agree_with_connect() {
    let (port, mut connections) = server().await;
    let ports = |rule: &mut crate::egress::Rule| rule.ports = vec![port];
    let mut way = way(vec![rule("a.example", ports), rule("b.example", ports)]);
    let hello = greeting(Some("a.example"));
    let mut client = tunnel(&way, &format!("A.example:{port}")).await;
    client.write_all(&hello).await.unwrap();
    let mut upstream = within(connections.recv()).await.unwrap();
    let mut received = vec![0; hello.len()];
    within(upstream.read_exact(&mut received)).await.unwrap();
    assert_eq!(received, hello);
    way.event().await;

    let mut client = tunnel(&way, &format!("a.example:{port}")).await;
    client.write_all(&greeting(Some("b.example"))).await.unwrap();
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert");
    let reason = "its TLS greeting is meant for b.example, which is another host";
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Tls), reason));

    let mut client = tunnel(&way, &format!("a.example:{port}")).await;
    let answer = say(&mut client, &format!("GET / HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n")).await;
    assert!(answer.contains(" 421 "), "{answer}");
    way.event().await;

    let mut client = tunnel(&way, &format!("a.example:{port}")).await;
    let answer =
        say(&mut client, &format!("CONNECT b.example:{port} HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n")).await;
    assert!(answer.contains(" 405 "), "no tunnel in a tunnel: {answer}");

    let mut client = tunnel(&way, &format!("a.example:{port}")).await;
    assert_eq!(say(&mut client, "SSH-2.0-x\r\n").await.len(), 0);
    assert!(connections.try_recv().is_err(), "nothing was dialled");
}

#[tokio::test]
async fn a_tunnel_to_what_is_not_allowed_is_refused_at_once() {
    let way = way(vec![rule("a.example", |_| {})]);
    for (request, status, words) in [
        ("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443", 403, "no rule allows this host"),
        ("CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22", 403, "no rule for this host has this port"),
        ("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80", 403, "no rule allows this host"),
        ("CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80", 403, "no rule allows this host"),
        ("CONNECT a.example HTTP/1.1\r\nHost: a.example", 400, "a host and a port"),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443", 400, "differ"),
        ("GET / HTTP/1.1\r\nHost: a.example", 400, "a whole address"),
        ("GET http://b.example/ HTTP/1.1\r\nHost: b.example", 403, "no rule allows this host"),
        ("GET http://a.example/ HTTP/1.1\r\nHost: b.example", 400, "differ"),
        ("GET https://a.example/ HTTP/1.1\r\nHost: a.example", 400, "not of plain http"),
        ("GET ftp://a.example/ HTTP/1.1\r\nHost: a.example", 400, "not of plain http"),
    ] {
        let answer = say(&mut way.to_proxy().await, &format!("{request}\r\n\r\n")).await;
        assert!(answer.contains(&format!(" {status} ")) && answer.contains(words), "{request}: {answer}");
    }
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
}

#[tokio::test]
async fn services_behind_the_door_are_served_over_the_proxy_too() {
    let way = way(vec![]);
    let request = "GET http://git.ostler.internal/ HTTP/1.1\r\nHost: git.ostler.internal\r\nConnection: close\r\n\r\n";
    let answer = say(&mut way.to_proxy().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_tunnel_counts_as_a_connection_and_ends_with_the_door() {
    let (port, _connections) = server().await;
    let limits = DoorLimits { connections: 1, ..DoorLimits::default() };
    let rules = vec![rule("a.example", |rule| rule.ports = vec![port])];
    let way = way_with(rules, Budget::default(), Default::default(), limits);
    let mut client = tunnel(&way, &format!("a.example:{port}")).await;
    let mut second = way.to_proxy().await;
    assert!(within(second.read_u8()).await.is_err(), "one too many");
    drop(way.open);
    let mut rest = Vec::new();
    let _ = within(client.read_to_end(&mut rest)).await;
}
