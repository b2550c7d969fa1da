//! TLS on its way out: what its greeting says decides, and must agree with where the connection goes.

use super::fixtures::{allowed, event, refused, rule, server, way};
use super::*;
use crate::egress::Rule;
use std::net::IpAddr;

/// The greeting of a real client, for a name; without one where there is none.
pub(super) fn greeting(name: Option<&str>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = name.unwrap_or("unnamed.example").to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

#[tokio::test]
async fn tls_to_an_allowed_name_gets_through_byte_for_byte() {
    let (port, mut connections) = server().await;
    let mut way = way(vec![rule("a.example", |rule| rule.ports = vec![port])]);
    let hello = greeting(Some("a.example"));
    for to in [SocketAddr::from((way.address("a.example").await, port)), ([203, 0, 113, 9], port).into()] {
        let mut client = way.to(to).await;
        client.write_all(&hello).await.unwrap();
        let mut upstream = within(connections.recv()).await.unwrap();
        let mut received = vec![0; hello.len()];
        within(upstream.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, hello, "{to}");
        upstream.write_all(b"answer").await.unwrap();
        // The client is done; the server still speaks.
        client.shutdown().await.unwrap();
        assert_eq!(within(upstream.read_to_end(&mut received)).await.unwrap(), 0);
        upstream.write_all(b" and more").await.unwrap();
        drop(upstream);
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "answer and more");
    }
    assert_eq!(way.event().await, allowed("a.example", port, Protocol::Tls));
    assert_eq!(way.open.door.counters().allowed, 2);
    drop(way.open);
    let DoorEvent::Decided { times: 1, .. } = event(&mut way.events).await else { panic!("the second one is counted") };
    let DoorEvent::Traffic { host, connections: 2, up, down, .. } = event(&mut way.events).await else {
        panic!("what passed is told")
    };
    assert_eq!((host.as_str(), up, down), ("a.example", 2 * hello.len() as u64, 30));
}

#[tokio::test]
async fn tls_that_is_not_allowed_or_disagrees_is_told_so_and_nothing_is_dialled() {
    let (port, mut connections) = server().await;
    let ports = |rule: &mut Rule| rule.ports = vec![port];
    let mut way = way(vec![
        rule("a.example", ports),
        rule("b.example", ports),
        rule("plain.example", |rule| {
            rule.ports = vec![port];
            rule.methods = vec!["GET".into()];
        }),
    ]);
    let a = way.address("a.example").await;
    let plain = way.address("plain.example").await;
    let elsewhere: IpAddr = "203.0.113.9".parse().unwrap();
    let mut two_names = greeting(Some("a.example"));
    let at = two_names.windows(9).position(|part| part == b"a.example").unwrap();
    two_names[at] = b'\0';
    let cases = [
        (elsewhere, greeting(Some("c.example")), "c.example", "no rule allows this host"),
        (elsewhere, greeting(None), "203.0.113.9", "its TLS greeting names no host"),
        (a, greeting(None), "a.example", "its TLS greeting names no host"),
        (a, greeting(Some("b.example")), "a.example", "its TLS greeting is meant for b.example, which is another host"),
        (
            plain,
            greeting(Some("plain.example")),
            "plain.example",
            "the rule for this host is about methods or paths, which cannot be seen within TLS",
        ),
    ];
    for (to, hello, host, reason) in cases {
        let mut client = way.to((to, port)).await;
        client.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, ALERT, "{reason}");
        assert_eq!(way.event().await, refused(host, Some(port), Some(Protocol::Tls), reason));
    }
    // A greeting that is damaged says nothing at all.
    for hello in [two_names, b"\x16\x03\x01\x00\x05hello".to_vec(), b"\x16\x03\x01\xff\xff".to_vec()] {
        let mut client = way.to((a, port)).await;
        client.write_all(&hello).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(within(client.read_u8()).await.is_err());
        let DoorEvent::Decided { decision, .. } = way.event().await else { panic!() };
        assert!(
            matches!(&decision.verdict, Verdict::Refused { reason } if reason.contains("greeting")),
            "{decision:?}"
        );
        way.open.door.turn_window();
    }
    assert!(connections.try_recv().is_err(), "nothing was dialled");
    assert!(way.names.asked.lock().unwrap().is_empty(), "nothing was resolved");
}

#[tokio::test]
async fn a_greeting_in_many_pieces_is_read_as_one() {
    let (port, mut connections) = server().await;
    let way = way(vec![rule("a.example", |rule| rule.ports = vec![port])]);
    let hello = greeting(Some("a.example"));
    // Over several records, each of which holds a part of the handshake.
    let body = &hello[5..];
    let records: Vec<u8> = body
        .chunks(40)
        .flat_map(|part| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat())
        .collect();
    for bytes in [hello, records] {
        let mut client = way.to_name("a.example", port).await;
        client.set_nodelay(true).unwrap();
        for byte in &bytes {
            client.write_all(&[*byte]).await.unwrap();
        }
        let mut upstream = within(connections.recv()).await.unwrap();
        let mut received = vec![0; bytes.len()];
        within(upstream.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, bytes);
    }
}

#[tokio::test]
async fn an_address_is_a_host_only_where_a_rule_names_it() {
    let (port, mut connections) = server().await;
    let mut way = way(vec![rule("127.0.0.1", |rule| rule.ports = vec![port])]);
    let mut client = way.to(([127, 0, 0, 1], port)).await;
    client.write_all(&greeting(None)).await.unwrap();
    within(connections.recv()).await.unwrap();
    assert_eq!(way.event().await, allowed("127.0.0.1", port, Protocol::Tls));
    let mut client = way.to(([127, 0, 0, 2], port)).await;
    client.write_all(&greeting(None)).await.unwrap();
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, ALERT);
}
