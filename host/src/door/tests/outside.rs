//! What holds for every way out: addresses, budgets, the gate, protocols that nobody understands, and DNS.

use super::fixtures::{Gate, address_in, allowed, event, refused, rule, say, server, way, way_with};
use super::tls::greeting;
use super::*;
use crate::egress::{Budget, Rule};
use std::net::IpAddr;

fn ask(host: &str, port: u16) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
}

#[tokio::test]
async fn no_address_but_a_public_one_is_dialled_whatever_dns_says() {
    let (port, mut connections) = server().await;
    let mut closed = rule("a.example", |rule| rule.ports = vec![port]);
    closed.private.clear();
    let mut way = way(vec![closed]);
    for (address, kind) in [
        ("127.0.0.1", "loopback"),
        ("10.0.0.1", "private"),
        ("169.254.169.254", "metadata of a cloud"),
        ("100.64.0.1", "shared by a carrier"),
        ("0.0.0.0", "this network"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "IPv4 in IPv6"),
        ("64:ff9b::7f00:1", "IPv4 in IPv6 (NAT64)"),
        ("fd00:ec2::254", "metadata of a cloud"),
        ("198.18.0.1", "for benchmarks"),
    ] {
        way.names.set("a.example", &[&[address]]);
        let mut client = way.to_name("a.example", port).await;
        client.write_all(&greeting(Some("a.example"))).await.unwrap();
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        let shown: IpAddr = address.parse().unwrap();
        let reason = format!("its address {shown} is {kind}");
        assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Tls), &reason));
    }
    assert!(connections.try_recv().is_err(), "nothing was dialled");
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_judged_by_what_is_dialled() {
    let (port, mut connections) = server().await;
    let mut way = way(vec![rule("a.example", |rule| rule.ports = vec![port])]);
    way.names.set("a.example", &[&["169.254.169.254", "127.0.0.1"], &["169.254.169.254"]]);
    let hello = greeting(Some("a.example"));
    let mut first = way.to_name("a.example", port).await;
    first.write_all(&hello).await.unwrap();
    // Of the two addresses only the second one is dialled.
    assert!(within(connections.recv()).await.is_some());
    assert_eq!(way.event().await, allowed("a.example", port, Protocol::Tls));
    let mut second = way.to_name("a.example", port).await;
    second.write_all(&hello).await.unwrap();
    let reason = "its address 169.254.169.254 is metadata of a cloud";
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Tls), reason));
    assert_eq!(way.names.asked.lock().unwrap().len(), 2, "each connection resolves once");
}

#[tokio::test]
async fn a_used_up_budget_cuts_every_connection_and_opens_no_other() {
    let (port, mut connections) = server().await;
    let budget = Budget { down: Some(100_000), ..Budget::default() };
    let rules = vec![rule("a.example", |rule| rule.tcp_ports = vec![port])];
    let mut way = way_with(rules, budget, Gate::default(), DoorLimits::default());
    let mut idle = way.to_name("a.example", port).await;
    let mut idle_upstream = within(connections.recv()).await.unwrap();
    let mut busy = way.to_name("a.example", port).await;
    let mut upstream = within(connections.recv()).await.unwrap();
    let sent = tokio::spawn(async move { while upstream.write_all(&[7; 10_000]).await.is_ok() {} });
    let mut received = Vec::new();
    let _ = within(busy.read_to_end(&mut received)).await;
    assert!(received.len() <= 100_000, "{} bytes came through", received.len());
    within(sent).await.unwrap();
    assert!(within(idle.read_u8()).await.is_err(), "the other one is cut too");
    assert!(within(idle_upstream.read_u8()).await.is_err());
    assert_eq!(way.event().await, allowed("a.example", port, Protocol::Tcp));
    let why = "the session has received the 100000 bytes that it may";
    assert_eq!(way.event().await, DoorEvent::Spent { why: why.into() });
    let mut third = way.to_name("a.example", port).await;
    assert!(within(third.read_u8()).await.is_err());
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Tcp), why));
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn a_budget_of_what_is_sent_counts_what_is_sent() {
    let (port, mut connections) = server().await;
    let rules = vec![rule("a.example", |rule| rule.tcp_ports = vec![port])];
    let budget = Budget { up: Some(10), ..Budget::default() };
    let mut way = way_with(rules, budget, Gate::default(), DoorLimits::default());
    let mut client = way.to_name("a.example", port).await;
    let mut upstream = within(connections.recv()).await.unwrap();
    upstream.write_all(&[7; 1000]).await.unwrap();
    within(client.read_exact(&mut [0; 1000])).await.unwrap();
    client.write_all(&[7; 11]).await.unwrap();
    assert!(within(client.read_u8()).await.is_err());
    way.event().await;
    let why = "the session has sent the 10 bytes that it may";
    assert_eq!(way.event().await, DoorEvent::Spent { why: why.into() });
}

#[tokio::test]
async fn every_way_out_passes_the_gate_and_none_gets_past_it() {
    let (port, mut connections) = server().await;
    let (tcp_port, mut tcp_connections) = server().await;
    let rules = vec![rule("a.example", |rule: &mut Rule| {
        rule.ports = vec![port];
        rule.tcp_ports = vec![tcp_port];
    })];
    let gate = Gate { reason: Some("not today"), ..Gate::default() };
    let mut way = way_with(rules, Budget::default(), gate, DoorLimits::default());

    let mut tls = way.to_name("a.example", port).await;
    tls.write_all(&greeting(Some("a.example"))).await.unwrap();
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Tls), "not today"));

    let answer = say(&mut way.to_name("a.example", port).await, &ask("a.example", port)).await;
    assert!(answer.contains(" 403 ") && answer.contains("not today"), "{answer}");
    assert_eq!(way.event().await, refused("a.example", Some(port), Some(Protocol::Http), "not today"));

    let absolute = format!("GET http://a.example:{port}/x HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n");
    let answer = say(&mut way.to_proxy().await, &absolute).await;
    assert!(answer.contains("not today"), "{answer}");

    let mut connect = way.to_proxy().await;
    let text = format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\n");
    connect.write_all(&[text.as_bytes(), &greeting(Some("a.example"))].concat()).await.unwrap();
    let mut answer = Vec::new();
    within(connect.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.ends_with(&[0x15, 3, 3, 0, 2, 2, 49]), "{}", String::from_utf8_lossy(&answer));

    let mut tcp = way.to_name("a.example", tcp_port).await;
    assert!(within(tcp.read_u8()).await.is_err());
    assert_eq!(way.event().await, refused("a.example", Some(tcp_port), Some(Protocol::Tcp), "not today"));

    let asked = std::mem::take(&mut *way.gate.asked.lock().unwrap());
    let session = asked[0].session;
    let request = |protocol, port, path: Option<&str>| EgressRequest {
        session,
        host: "a.example".into(),
        port,
        protocol,
        method: path.map(|_| "GET".into()),
        path: path.map(str::to_owned),
    };
    let expected = [
        request(Protocol::Tls, port, None),
        request(Protocol::Http, port, Some("/")),
        request(Protocol::Http, port, Some("/x")),
        request(Protocol::Tls, port, None),
        request(Protocol::Tcp, tcp_port, None),
    ];
    assert_eq!(asked, expected);
    assert!(connections.try_recv().is_err() && tcp_connections.try_recv().is_err(), "nothing was dialled");
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_reached_by_name_where_its_port_is_open_for_anything() {
    let (port, mut connections) = server().await;
    let mut way = way(vec![rule("ssh.example", |rule| rule.tcp_ports = vec![port])]);
    let mut client = way.to_name("ssh.example", port).await;
    let mut upstream = within(connections.recv()).await.unwrap();
    upstream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    within(client.read_exact(&mut [0; 11])).await.unwrap();
    assert_eq!(way.event().await, allowed("ssh.example", port, Protocol::Tcp));
    // By its address nobody knows what it is.
    let mut client = way.to(([127, 0, 0, 1], port)).await;
    client.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    assert!(within(client.read_u8()).await.is_err());
    let unclear = "it is neither TLS nor HTTP, so that nobody can tell what it is for";
    assert_eq!(way.event().await, refused("127.0.0.1", Some(port), None, unclear));
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_is_refused() {
    let (port, mut connections) = server().await;
    let mut way = way(vec![rule("a.example", |rule| rule.ports = vec![port])]);
    for (said, reason) in [
        ("\0\0\0", "it is neither TLS nor HTTP, so that nobody can tell what it is for"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS is not spoken here"),
    ] {
        let mut client = way.to_name("a.example", port).await;
        assert_eq!(say(&mut client, said).await, "");
        assert_eq!(way.event().await, refused("a.example", Some(port), None, reason));
    }
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn addresses_of_the_configuration_stand_in_the_place_of_dns() {
    let (port, mut connections) = server().await;
    let way = way(vec![rule("mirror.example", |rule| {
        rule.tcp_ports = vec![port];
        rule.addresses = vec!["127.0.0.1".parse().unwrap()];
    })]);
    let _client = way.to_name("mirror.example", port).await;
    assert!(within(connections.recv()).await.is_some());
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
}

#[tokio::test]
async fn dns_is_answered_over_tcp_too_to_any_server() {
    let way = way(vec![rule("a.example", |_| {})]);
    let expected = way.address("a.example").await;
    let mut client = way.to(([8, 8, 8, 8], 53)).await;
    for name in ["a.example", "b.example", "a.example"] {
        let query = query(name);
        client.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).await.unwrap();
        let mut answer = vec![0; usize::from(within(client.read_u16()).await.unwrap())];
        within(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(address_in(&answer), (name == "a.example").then_some(expected), "{name}");
    }
    client.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert!(within(client.read_u8()).await.is_err(), "rubbish ends the connection");
}

#[tokio::test]
async fn the_last_window_is_told_when_the_door_closes() {
    let way = way(vec![]);
    let mut events = way.open.door.events();
    for _ in 0..3 {
        let mut client = way.to(([203, 0, 113, 9], 443)).await;
        assert!(within(client.read_u8()).await.is_err());
    }
    assert_eq!(event(&mut events).await, refused("203.0.113.9", Some(443), None, "no rule has this port"));
    drop(way);
    let DoorEvent::Decided { times, .. } = event(&mut events).await else { panic!() };
    assert_eq!(times, 2);
    assert!(within(events.recv()).await.is_err(), "nothing comes after it");
}

#[tokio::test]
async fn the_traffic_of_a_connection_that_is_open_when_the_door_closes_is_told() {
    let (port, mut connections) = server().await;
    let way = way(vec![rule("a.example", |rule| rule.tcp_ports = vec![port])]);
    let mut events = way.open.door.events();
    let mut client = way.to_name("a.example", port).await;
    let mut upstream = within(connections.recv()).await.unwrap();
    client.write_all(b"sent before").await.unwrap();
    within(upstream.read_exact(&mut [0; 11])).await.unwrap();
    assert_eq!(event(&mut events).await, allowed("a.example", port, Protocol::Tcp));
    drop(way);
    let told = event(&mut events).await;
    assert!(matches!(told, DoorEvent::Traffic { connections: 1, up: 11, down: 0, .. }), "{told:?}");
    assert!(within(events.recv()).await.is_err(), "nothing comes after it");
}
