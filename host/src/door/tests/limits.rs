//! What one sandbox may take: turns, and places that it does not keep from the others.

use super::fixtures::{rule, way_with};
use super::*;
use crate::egress::Budget;
use tokio::sync::Semaphore;

/// Time in which something that must not happen would have happened.
const MOMENT: Duration = Duration::from_millis(300);

/// Two at once, and then no other in the time of a test.
const TWO: Rate = Rate { every: Duration::from_secs(3600), burst: 2 };

const ASK: &str = "GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n\r\n";

/// Sends requests; how many are answered within a moment.
async fn answers(stream: &mut TcpStream, requests: &str) -> usize {
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    while let Ok(read) = tokio::time::timeout(MOMENT, stream.read_buf(&mut answers)).await {
        assert!(read.unwrap() > 0, "the connection goes on");
    }
    String::from_utf8_lossy(&answers).matches("hello").count()
}

#[tokio::test]
async fn queries_of_dns_are_answered_at_a_rate_over_udp_and_tcp_together() {
    let limits = DoorLimits { queries: TWO, ..DoorLimits::default() };
    let way = way_with(vec![rule("a.example", |_| {})], Budget::default(), Default::default(), limits);
    way.address("a.example").await;
    let mut stream = way.to(([8, 8, 8, 8], 53)).await;
    let query = query("a.example");
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    // Pipelined.
    stream.write_all(&[framed.clone(), framed.clone()].concat()).await.unwrap();
    let length = within(stream.read_u16()).await.unwrap();
    within(stream.read_exact(&mut vec![0; usize::from(length)])).await.unwrap();
    assert!(tokio::time::timeout(MOMENT, stream.read_u16()).await.is_err(), "the third one waits");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query, way.open.dns).await.unwrap();
    assert!(tokio::time::timeout(MOMENT, socket.recv(&mut [0; 512])).await.is_err(), "so does the fourth one");
}

#[tokio::test]
async fn new_connections_and_requests_come_at_a_rate() {
    let limits = DoorLimits { wishes: TWO, ..DoorLimits::default() };
    let open = open(hello(), limits, || Ok(GIT));
    let mut stream = TcpStream::connect(open.tcp).await.unwrap();
    assert_eq!(answers(&mut stream, &ASK.repeat(3)).await, 2, "the third one waits");
    let second = TcpStream::connect(open.tcp).await.unwrap();
    let third = TcpStream::connect(open.tcp).await.unwrap();
    for (mut stream, served) in [(second, true), (third, false)] {
        // What is no HTTP is answered at once, where anybody listens.
        stream.write_all(b"\0\r\n\r\n").await.unwrap();
        assert_eq!(tokio::time::timeout(MOMENT, stream.read_u8()).await.is_ok(), served);
    }
}

#[tokio::test]
async fn requests_over_the_proxy_come_at_a_rate_too() {
    let limits = DoorLimits { wishes: TWO, ..DoorLimits::default() };
    let way = way_with(vec![], Budget::default(), Default::default(), limits);
    let request = "GET http://git.ostler.internal/ HTTP/1.1\r\nHost: git.ostler.internal\r\n\r\n";
    let mut client = way.to_proxy().await;
    assert_eq!(answers(&mut client, &request.repeat(3)).await, 2, "the third one waits");
}

#[tokio::test]
async fn one_sandbox_that_takes_all_places_leaves_every_other_its_own() {
    let mut outside = Outside::new(Policy::default());
    outside.places = Arc::new(Semaphore::new(3));
    let limits = DoorLimits { own: 2, ..DoorLimits::default() };
    let destination: Destination = Arc::new(|_| Ok(GIT.into()));
    let door = || {
        let options = DoorOptions { limits, destination: Arc::clone(&destination) };
        open_to(hello(), Arc::default(), outside.clone(), options)
    };
    let (greedy, other) = (door(), door());
    let mut events = other.door.events();
    let mut kept = Vec::new();
    for (open, most) in [(&greedy, 5), (&other, 2)] {
        for number in 0..=most {
            let mut stream = TcpStream::connect(open.tcp).await.unwrap();
            // A refused one may be reset already.
            let _ = stream.write_all(ASK.as_bytes()).await;
            assert_eq!(within(stream.read_u8()).await.is_ok(), number < most, "{number} of {most}");
            kept.push(stream);
        }
    }
    let reason = "the sandboxes of this host have too many connections open";
    assert_eq!(event(&mut events).await, refused("198.18.0.1", Some(80), None, reason));
    drop(greedy);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(other.tcp).await.unwrap();
            if stream.write_all(ASK.as_bytes()).await.is_ok() && stream.read_u8().await.is_ok() {
                break;
            }
        }
    };
    within(again).await;
}
