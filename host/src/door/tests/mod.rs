//! Tests of the door on loopback, with an injected destination, and once in a real namespace with a real redirect.

use crate::forge::GitRunner;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::egress::Policy;

mod fixtures;
mod http;
mod limits;
mod outside;
mod relay;
mod tls;
mod tunnel;

use super::*;
use fixtures::{event, refused};

/// Time for anything in a test; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

const GIT: SocketAddrV4 = SocketAddrV4::new(DoorHost::GIT.address, 80);

/// A door on loopback; its sockets are in blocking mode, as they may come from the launcher.
struct Open {
    door: Door,
    tcp: SocketAddr,
    dns: SocketAddr,
}

fn open(
    hosts: DoorHosts,
    limits: DoorLimits,
    destination: impl Fn() -> io::Result<SocketAddrV4> + Send + Sync + 'static,
) -> Open {
    let destination: Destination = Arc::new(move |_| destination().map(SocketAddr::from));
    open_to(hosts, Arc::default(), Outside::new(Policy::default()), DoorOptions { limits, destination })
}

fn open_to(hosts: DoorHosts, account: Arc<Account>, outside: Outside, options: DoorOptions) -> Open {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dns = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp_address, dns_address) = (tcp.local_addr().unwrap(), dns.local_addr().unwrap());
    let sockets = DoorSockets { tcp: tcp.into(), dns: dns.into(), dns_v6: None };
    let door = Door::open(sockets, (SessionId::generate(), account), hosts, outside, options).unwrap();
    Open { door, tcp: tcp_address, dns: dns_address }
}

fn hello() -> DoorHosts {
    DoorHosts::new().with(DoorHost::GIT, Router::new().route("/", get(|| async { "hello" })))
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

/// Sends a request and returns everything that comes back.
async fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

async fn git(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let environment = [
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ];
    command.envs(environment).current_dir(folder).args(arguments).kill_on_drop(true);
    within(command.output()).await.unwrap()
}

async fn git_succeeds(folder: &Path, arguments: &[&str]) {
    let output = git(folder, arguments).await;
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A forge with one commit on `main` of `demo`, and what a session may do to it.
async fn forge() -> (TempDir, Forge, Access) {
    let folder = tempfile::tempdir().unwrap();
    let forge = Forge::open(&folder.path().join("forge"), GitRunner::children()).unwrap();
    let name = "demo".parse().unwrap();
    let repository = forge.create(&name).await.unwrap();
    git_succeeds(folder.path(), &["init", "-q", "-b", "main", "work"]).await;
    let work = folder.path().join("work");
    git_succeeds(&work, &["commit", "-q", "--allow-empty", "-m", "first"]).await;
    git_succeeds(&work, &["push", "-q", repository.path.to_str().unwrap(), "main"]).await;
    let access = Access::Session {
        session: SessionId::generate(),
        repository: name,
        base_branch: "main".into(),
        push_branch: "ostler/x".into(),
    };
    (folder, forge, access)
}

#[tokio::test]
async fn git_goes_through_the_door_to_its_own_branch_only() {
    let (folder, forge, access) = forge().await;
    let hosts = DoorHosts::new().with(DoorHost::GIT, git_router(forge.clone(), access));
    let open = open(hosts, DoorLimits::default(), || Ok(GIT));
    let url = format!("http://{}/demo.git", open.tcp);
    let host = format!("http.extraHeader=Host: {}", DoorHost::GIT.name);
    git_succeeds(folder.path(), &["-c", &host, "clone", "-q", &url, "copy"]).await;
    let copy = folder.path().join("copy");
    git_succeeds(&copy, &["commit", "-q", "--allow-empty", "-m", "work"]).await;
    git_succeeds(&copy, &["-c", &host, "push", "-q", "origin", "HEAD:refs/heads/ostler/x"]).await;
    let refused = git(&copy, &["-c", &host, "push", "-q", "origin", "HEAD:main"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("by pull request"), "{said}");
    let log = forge.log(&"demo".parse().unwrap(), None, "ostler/x", 10).await.unwrap();
    assert_eq!(log.iter().map(|commit| commit.subject.as_str()).collect::<Vec<_>>(), ["work", "first"]);
    assert!(open.door.counters().served >= 3);
    assert_eq!(open.door.counters().refused, 0);
}

#[tokio::test]
async fn only_requests_that_name_the_host_are_served() {
    let open = open(hello(), DoorLimits::default(), || Ok(GIT));
    let end = "Connection: close\r\n\r\n";
    for head in [
        "GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n",
        "GET / HTTP/1.1\r\nHost: GIT.ostler.internal:80\r\n",
        "GET http://git.ostler.internal/ HTTP/1.1\r\nHost: git.ostler.internal\r\n",
    ] {
        let answer = request(open.tcp, &format!("{head}{end}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{head}: {answer}");
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: example.org\r\n",
        "GET / HTTP/1.1\r\nHost: git.ostler.internal:8080\r\n",
        "GET / HTTP/1.1\r\nHost: x@git.ostler.internal\r\n",
        "GET / HTTP/1.1\r\nHost: git.ostler.internal\r\nHost: example.org\r\n",
        "GET http://example.org/ HTTP/1.1\r\nHost: git.ostler.internal\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET /nothing HTTP/1.1\r\nHost: example.org\r\n",
    ] {
        let answer = request(open.tcp, &format!("{head}{end}")).await;
        assert!(answer.starts_with("HTTP/1.1 421") || answer.starts_with("HTTP/1.0 421"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn every_other_destination_is_reset_and_reported() {
    let wanted: SocketAddrV4 = "203.0.113.9:443".parse().unwrap();
    let no_port = "no rule has this port";
    for (destination, expected) in [
        (Some(wanted), refused("203.0.113.9", Some(443), None, no_port)),
        (Some(SocketAddrV4::new(*GIT.ip(), 443)), refused("198.18.0.1", Some(443), None, no_port)),
        (None, refused("unknown", None, None, "nobody knows where the connection was going")),
    ] {
        let open =
            open(hello(), DoorLimits::default(), move || destination.ok_or_else(|| io::Error::other("not redirected")));
        let mut events = open.door.events();
        let mut stream = TcpStream::connect(open.tcp).await.unwrap();
        let error = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(event(&mut events).await, expected);
        assert_eq!(open.door.counters(), DoorCounters { refused: 1, ..DoorCounters::default() });
    }
}

#[tokio::test]
async fn a_connection_over_the_limit_is_refused_until_another_ends() {
    let limits = DoorLimits { connections: 2, ..DoorLimits::default() };
    let open = open(hello(), limits, || Ok(GIT));
    let mut events = open.door.events();
    let ask = "GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n\r\n";
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(open.tcp).await.unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        within(stream.read_u8()).await.unwrap();
        kept.push(stream);
    }
    let mut third = TcpStream::connect(open.tcp).await.unwrap();
    assert!(within(third.read_u8()).await.is_err());
    let too_many = "the sandbox has too many connections open";
    assert_eq!(event(&mut events).await, refused("198.18.0.1", Some(80), None, too_many));
    kept.pop();
    // The door hears of the end a moment later.
    let again = async {
        loop {
            let mut stream = TcpStream::connect(open.tcp).await.unwrap();
            if stream.write_all(ask.as_bytes()).await.is_ok() && stream.read_u8().await.is_ok() {
                break;
            }
        }
    };
    within(again).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_and_between_requests() {
    let limits = DoorLimits { idle: Duration::from_millis(50), ..DoorLimits::default() };
    let open = open(hello(), limits, || Ok(GIT));
    assert_eq!(request(open.tcp, "").await, "");
    let answer = request(open.tcp, "GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
    let answer = request(open.tcp, "GET / HTTP/1.1\r\nHost: git.os").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let open = open(hello(), DoorLimits::default(), || Ok(GIT));
    let many = "X: y\r\n".repeat(100);
    let answer = request(open.tcp, &format!("GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_closed_door_ends_every_connection() {
    let open = open(hello(), DoorLimits::default(), || Ok(GIT));
    let mut stream = TcpStream::connect(open.tcp).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: git.ostler.internal\r\n\r\n").await.unwrap();
    within(stream.read_u8()).await.unwrap();
    drop(open.door);
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    let closed = async { while TcpStream::connect(open.tcp).await.is_ok() {} };
    within(closed).await;
}

fn query(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.questions.push(Question::new(Name::new_unchecked(name), TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

async fn look_up(server: SocketAddr, name: &str) -> (RCODE, usize) {
    let socket = UdpSocket::bind(if server.ip().is_loopback() { "127.0.0.1:0" } else { "0.0.0.0:0" }).await.unwrap();
    socket.connect(server).await.unwrap();
    // Rubbish first: it must be passed over in silence.
    for rubbish in [&b""[..], b"x", &[0xff; 600]] {
        socket.send(rubbish).await.unwrap();
    }
    socket.send(&query(name)).await.unwrap();
    let mut buffer = [0; 512];
    let length = within(socket.recv(&mut buffer)).await.unwrap();
    let packet = Packet::parse(&buffer[..length]).unwrap();
    (packet.rcode(), packet.answers.len())
}

#[tokio::test]
async fn names_are_answered_over_the_socket_and_unknown_ones_reported() {
    let open = open(hello(), DoorLimits::default(), || Ok(GIT));
    let mut events = open.door.events();
    assert_eq!(look_up(open.dns, "git.ostler.internal").await, (RCODE::NoError, 1));
    assert_eq!(look_up(open.dns, "example.org").await, (RCODE::NameError, 0));
    let expected = refused("example.org", None, Some(Protocol::Dns), "no rule allows this host");
    assert_eq!(event(&mut events).await, expected);
}

#[tokio::test]
async fn a_descriptor_of_another_kind_is_refused() {
    let tcp = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let dns = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let unix = || OwnedFd::from(std::os::unix::net::UnixStream::pair().unwrap().0);
    let connected = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        OwnedFd::from(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let open = |tcp, dns, dns_v6| {
        let (sockets, outside) = (DoorSockets { tcp, dns, dns_v6 }, Outside::new(Policy::default()));
        Door::open(sockets, (SessionId::generate(), Arc::default()), hello(), outside, DoorOptions::default())
    };
    let cases =
        [(dns(), dns()), (file(), dns()), (unix(), dns()), (connected(), dns()), (tcp(), tcp()), (tcp(), file())];
    for (one, two) in cases {
        let error = open(one, two, None).unwrap_err();
        assert!(matches!(error, DoorError::Descriptor { .. }), "{error:?}");
    }
    assert!(matches!(open(tcp(), dns(), Some(tcp())), Err(DoorError::Descriptor { .. })));
    assert!(open(tcp(), dns(), Some(dns())).is_ok());
}

/// Needs root, `unshare`, `busybox` and `nft`. Runs the test below in a network namespace of its own, which has no route but
/// loopback and the rules of a sandbox.
#[tokio::test]
async fn as_root_a_real_redirect_leads_to_the_door() {
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "door::tests::inside_a_namespace"]).kill_on_drop(true);
    let output = within(command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "only in a network namespace of its own: run by `as_root_a_real_redirect_leads_to_the_door`"]
async fn inside_a_namespace() {
    let run = async |program: &str, arguments: &[&str]| {
        let output = within(Command::new(program).args(arguments).output()).await.unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let routes = std::fs::read_to_string("/proc/net/route").unwrap();
    assert!(routes.lines().count() <= 1, "this is no fresh namespace: {routes}");
    run("busybox", &["ip", "link", "set", "lo", "up"]).await;
    run("busybox", &["ip", "address", "add", "10.255.255.1/32", "dev", "lo"]).await;
    run("busybox", &["ip", "route", "add", "default", "dev", "lo", "src", "10.255.255.1"]).await;
    let tcp = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let dns = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (tcp_port, dns_port) = (tcp.local_addr().unwrap().port(), dns.local_addr().unwrap().port());
    let rules = format!(
        "add table inet box; add chain inet box out {{ type nat hook output priority -100; }}; \
         add rule inet box out ip daddr 127.0.0.0/8 accept; \
         add rule inet box out meta l4proto tcp redirect to :{tcp_port}; \
         add rule inet box out udp dport 53 redirect to :{dns_port}"
    );
    run("nft", &[&rules]).await;
    let (folder, forge, access) = forge().await;
    let sockets = DoorSockets { tcp: tcp.into(), dns: dns.into(), dns_v6: None };
    let (services, outside) = (Door::services(forge, access), Outside::new(Policy::default()));
    let door = Door::open(sockets, (SessionId::generate(), Arc::default()), services, outside, DoorOptions::default())
        .unwrap();
    let mut events = door.events();
    let resolve = "http.curloptResolve=git.ostler.internal:80:198.18.0.1";
    git_succeeds(folder.path(), &["-c", resolve, "clone", "-q", "http://git.ostler.internal/demo.git", "copy"]).await;
    assert_eq!(look_up("8.8.8.8:53".parse().unwrap(), "git.ostler.internal").await, (RCODE::NoError, 1));
    let wanted: SocketAddrV4 = "203.0.113.9:443".parse().unwrap();
    let mut stream = TcpStream::connect(wanted).await.unwrap();
    assert_eq!(within(stream.read_u8()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(event(&mut events).await, refused("203.0.113.9", Some(443), None, "no rule has this port"));
    // Straight to the listener, past the redirect: there is nothing behind that address.
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp_port)).await.unwrap();
    assert!(within(stream.read_u8()).await.is_err());
}
