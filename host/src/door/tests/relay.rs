//! Copying: bytes arrive as they were sent, ends and cuts are passed on as what they are, and a budget is kept to the byte.

use proptest::prelude::*;

use super::fixtures::{Gate, Way, allowed, refused, rule, server, way, way_of};
use super::*;
use crate::egress::Budget;

/// A connection through a door, from both sides.
async fn pair() -> (Way, TcpStream, TcpStream) {
    let (port, mut connections) = server().await;
    let way = way(vec![rule("a.example", |rule| rule.tcp_ports = vec![port])]);
    let client = way.to_name("a.example", port).await;
    let upstream = within(connections.recv()).await.unwrap();
    (way, client, upstream)
}

/// Sends pieces that no two of which are alike, and the end.
async fn send(mut to: impl tokio::io::AsyncWrite + Unpin, pieces: Vec<usize>) -> Vec<u8> {
    let mut sent = Vec::new();
    for length in pieces {
        let piece: Vec<u8> = (sent.len()..sent.len() + length).map(|at| (at * 31 + at / 251) as u8).collect();
        to.write_all(&piece).await.unwrap();
        sent.extend(piece);
        tokio::task::yield_now().await;
    }
    to.shutdown().await.unwrap();
    sent
}

async fn receive(mut from: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    received
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(within(work));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_byte_arrives_both_ways_whatever_the_pieces_and_whoever_ends_first(
        up in proptest::collection::vec(0usize..200_000, 0..12),
        down in proptest::collection::vec(0usize..2_000_000, 0..6),
    ) {
        run(async move {
            let (_way, client, upstream) = pair().await;
            let ((from_client, to_client), (from_upstream, to_upstream)) = (client.into_split(), upstream.into_split());
            let (sent_up, sent_down, got_up, got_down) =
                tokio::join!(send(to_client, up), send(to_upstream, down), receive(from_upstream), receive(from_client));
            assert!(sent_up == got_up, "{} bytes up, {} arrived", sent_up.len(), got_up.len());
            assert!(sent_down == got_down, "{} bytes down, {} arrived", sent_down.len(), got_down.len());
        });
    }

    #[test]
    fn no_byte_passes_beyond_the_budget_of_however_many_connections(most in 1u64..300_000, connections in 1usize..5) {
        run(async move {
            let (port, mut servers) = server().await;
            let rules = vec![rule("a.example", |rule| rule.tcp_ports = vec![port])];
            let budget = Budget { total: Some(most), ..Budget::default() };
            let account = Arc::<Account>::default();
            let way = way_of(Arc::clone(&account), rules, budget, Gate::default(), DoorLimits::default());
            let mut pairs = Vec::new();
            for _ in 0..connections {
                pairs.push((way.to_name("a.example", port).await, servers.recv().await.unwrap()));
            }
            let mut both = tokio::task::JoinSet::new();
            for (mut client, mut upstream) in pairs {
                both.spawn(async move {
                    let sending = async { while client.write_all(&[1; 7000]).await.is_ok() {} };
                    let mut all = Vec::new();
                    let _ = tokio::join!(sending, upstream.read_to_end(&mut all));
                    all.len() as u64
                });
            }
            let arrived = both.join_all().await;
            assert_eq!(account.passed(), Bytes { up: most, down: 0 });
            assert!(arrived.into_iter().sum::<u64>() <= most);
        });
    }
}

#[tokio::test]
async fn a_side_that_does_not_read_does_not_hold_up_the_other_direction() {
    const PIECES: usize = 256;
    let (_way, mut client, upstream) = pair().await;
    let (mut from_inside, mut to_inside) = upstream.into_split();
    let piece = vec![7; 1 << 20];
    let flood = tokio::spawn(async move {
        for _ in 0..PIECES {
            to_inside.write_all(&piece).await.unwrap();
        }
    });
    for _ in 0..1000 {
        client.write_all(b"still here").await.unwrap();
        within(from_inside.read_exact(&mut [0; 10])).await.unwrap();
    }
    assert!(!flood.is_finished(), "more than every buffer on the way holds");
    client.shutdown().await.unwrap();
    assert_eq!(within(receive(client)).await.len(), PIECES << 20);
    within(flood).await.unwrap();
}

#[tokio::test]
async fn what_is_cut_in_the_middle_is_a_reset_on_the_other_side() {
    for inside_cuts in [true, false] {
        let (_way, mut client, mut upstream) = pair().await;
        client.write_all(b"half").await.unwrap();
        within(upstream.read_exact(&mut [0; 4])).await.unwrap();
        let (cut, mut left) = if inside_cuts { (client, upstream) } else { (upstream, client) };
        cut.set_zero_linger().unwrap();
        drop(cut);
        let error = within(left.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "inside cuts: {inside_cuts}");
    }
}

#[tokio::test]
async fn a_budget_that_an_earlier_sandbox_used_up_stays_used_up() {
    let (port, mut connections) = server().await;
    let rules = || vec![rule("a.example", |rule| rule.tcp_ports = vec![port])];
    let budget = Budget { up: Some(10), ..Budget::default() };
    let account = Arc::new(Account::new(Bytes { up: 4, down: 0 }));
    let open = || way_of(Arc::clone(&account), rules(), budget, Gate::default(), DoorLimits::default());
    let mut first = open();
    let mut client = first.to_name("a.example", port).await;
    let mut upstream = within(connections.recv()).await.unwrap();
    client.write_all(b"six and").await.unwrap();
    assert!(within(client.read_u8()).await.is_err());
    let mut arrived = Vec::new();
    let _ = within(upstream.read_to_end(&mut arrived)).await;
    assert!(b"six an".starts_with(&arrived), "{arrived:?}");
    assert_eq!(first.event().await, allowed("a.example", port, Protocol::Tcp));
    let why = "the session has sent the 10 bytes that it may";
    assert_eq!(first.event().await, DoorEvent::Spent { why: why.into() });
    drop(first);
    let mut second = open();
    let mut client = second.to_name("a.example", port).await;
    assert!(within(client.read_u8()).await.is_err());
    assert_eq!(second.event().await, refused("a.example", Some(port), Some(Protocol::Tcp), why));
    assert!(connections.try_recv().is_err(), "nothing was dialled");
}
