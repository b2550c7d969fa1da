//! What leaves a sandbox: TCP and DNS end at the sockets that the host was given, nothing else goes anywhere.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use ostler_sandbox::client::launcher::Started;
use ostler_wire::launcher::Family;

use crate::support::{Bench, ask, done, readable, words};

/// Accepts one connection and says where it was meant to go.
fn answer_tcp(started: &Started) -> JoinHandle<SocketAddr> {
    let listener = TcpListener::from(started.door_tcp.try_clone().unwrap());
    thread::spawn(move || {
        readable(listener.as_fd());
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"from the host").unwrap();
        match stream.peer_addr().unwrap().ip().to_canonical() {
            IpAddr::V4(_) => rustix::net::sockopt::ip_original_dst(&stream).unwrap().into(),
            IpAddr::V6(_) => rustix::net::sockopt::ipv6_original_dst(&stream).unwrap().into(),
        }
    })
}

/// Answers one query and returns it.
fn answer_dns(socket: &OwnedFd) -> JoinHandle<String> {
    let socket = UdpSocket::from(socket.try_clone().unwrap());
    thread::spawn(move || {
        readable(socket.as_fd());
        let mut query = [0; 100];
        let (length, from) = socket.recv_from(&mut query).unwrap();
        socket.send_to(b"resolved", from).unwrap();
        String::from_utf8_lossy(&query[..length]).into_owned()
    })
}

#[tokio::test]
async fn every_tcp_connection_ends_at_the_host_with_its_destination() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    for destination in [
        "203.0.113.9:8080",
        "169.254.169.254:80",
        "10.0.0.1:22",
        "8.8.8.8:53",
        "192.168.1.1:3129",
        "127.0.0.1:53",
        "[2606:4700::1111]:443",
        "[fd00:ec2::254]:80",
        "[fd6f:7374:6c65:72::c612:107]:443",
        "[2606:4700::1111]:53",
        "[::1]:53",
    ] {
        let answering = answer_tcp(&started);
        assert_eq!(done(&started.control, &format!("tcp {destination}")), "from the host");
        assert_eq!(answering.join().unwrap(), destination.parse().unwrap());
    }
    let mapped = answer_tcp(&started);
    assert_eq!(done(&started.control, "tcp [::ffff:203.0.113.9]:443"), "from the host");
    assert_eq!(mapped.join().unwrap(), "203.0.113.9:443".parse().unwrap());
}

#[tokio::test]
async fn every_dns_query_ends_at_the_host_whatever_server_it_asks() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let v6 = started.door_dns_v6.as_ref().expect("this machine has IPv6");
    for (server, socket) in [
        ("8.8.8.8:53", &started.door_dns),
        ("127.0.0.1:53", &started.door_dns),
        ("127.0.0.53:53", &started.door_dns),
        ("10.255.255.1:53", &started.door_dns),
        ("[::1]:53", v6),
        ("[2606:4700::1111]:53", v6),
        ("[fd6f:7374:6c65:72::1]:53", v6),
    ] {
        let answering = answer_dns(socket);
        assert_eq!(done(&started.control, &format!("udp {server} query")), "resolved", "{server}");
        assert_eq!(answering.join().unwrap(), "query");
    }
}

/// Says hello over a minted socket and gives the answer.
async fn through(socket: OwnedFd, address: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpSocket::from_std_stream(TcpStream::from(socket));
    let mut stream = socket.connect(address.parse().unwrap()).await?;
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn a_minted_socket_reaches_what_listens_in_the_sandbox_and_nothing_outside() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let other = bench.create(&launcher, &bench.id(2)).await;
    done(&started.control, "listen 127.0.0.1:8099");
    done(&started.control, "listen [::1]:8098");
    let sockets = launcher.mint(&bench.id(1), Family::V4, 16).await.unwrap();
    assert_eq!(sockets.len(), 16);
    for socket in sockets {
        assert_eq!(through(socket, "127.0.0.1:8099").await.unwrap(), "hello");
    }
    let [socket] = launcher.mint(&bench.id(1), Family::V6, 1).await.unwrap().try_into().unwrap();
    assert_eq!(through(socket, "[::1]:8098").await.unwrap(), "hello");
    // What listens on the host's loopback, or in another sandbox, is not there.
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap().to_string();
    for (number, address) in [(1, address.as_str()), (2, "127.0.0.1:8099")] {
        let [socket] = launcher.mint(&bench.id(number), Family::V4, 1).await.unwrap().try_into().unwrap();
        let refused = through(socket, address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
    }
    drop(other);
}

#[tokio::test]
async fn sockets_are_minted_only_in_a_sandbox_that_lives_and_in_bounds() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    // Namespaces can be entered once the guest runs.
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
    for (sandbox, count, expected) in [
        (bench.id(1), 0, "0 sockets; 1 to 16 are possible"),
        (bench.id(1), 17, "17 sockets; 1 to 16 are possible"),
        (bench.id(2), 1, "does not live"),
        ("../x".to_owned(), 1, "no bare lowercase ULID"),
    ] {
        let refused = words(&launcher.mint(&sandbox, Family::V4, count).await.unwrap_err());
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(launcher.mint(&bench.id(1), Family::V4, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn everything_else_fails_at_once() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    for destination in ["1.1.1.1:443", "8.8.8.8:123", "[2606:4700::1111]:443", "[ff02::fb]:5353", "255.255.255.255:67"]
    {
        let answer = ask(&started.control, &format!("udp {destination} quic"));
        let milliseconds: u32 = answer.split(' ').nth(3).and_then(|word| word.parse().ok()).unwrap_or(9999);
        // The stand-in would wait for 3 seconds.
        assert!(answer.starts_with("err") && milliseconds < 1000, "{destination}: {answer}");
    }
}

#[tokio::test]
async fn loopback_belongs_to_the_sandbox() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    for closed in ["127.0.0.1:8099", "10.255.255.1:8099", "[::1]:8099", "[fd6f:7374:6c65:72::1]:8099"] {
        let answer = ask(&started.control, &format!("tcp {closed}"));
        assert!(answer.contains("refused"), "{closed}: {answer}");
    }
    let interfaces = done(&started.control, "read /proc/net/dev");
    assert_eq!(interfaces.lines().filter(|line| line.contains(':')).count(), 1, "{interfaces}");
}
