//! The way out of a real sandbox: what the operator allowed, and nothing else, whatever program tries and however.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::Request;
use axum::response::Redirect;
use axum::routing::get;
use ostler_protocol::event::{EgressProtocol, EgressVerdict};
use ostler_protocol::{Event, EventBody};
use ostler_tests::client::tool_outputs;
use ostler_tests::tls_server::TlsServer;
use ostler_tests::{Host, HostOptions, Repository, script};

/// A server of plain HTTP on loopback.
async fn web() -> Result<SocketAddr> {
    let router = Router::new()
        .route("/moved", get(|| async { Redirect::temporary("http://169.254.169.254/latest/meta-data") }))
        .fallback(async |request: Request| format!("web {} {}\n", request.method(), request.uri()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Runs commands in one sandbox of a host with this configuration; returns the log and their outputs.
async fn run(config: String, commands: &[&str]) -> Result<(Host, Vec<Event>, Vec<String>)> {
    let host =
        Host::start(HostOptions { script: script::commands(commands), config, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let outputs = tool_outputs(&events);
    Ok((host, events, outputs))
}

/// Hosts that are on this machine.
fn here(name: &str, port: u16, more: &str) -> String {
    format!(
        "[egress.hosts.\"{name}\"]\nports = [{port}]\naddresses = [\"127.0.0.1\"]\nprivate = [\"127.0.0.0/8\"]\n{more}\n"
    )
}

/// Whether a decision about a host is in the log.
fn decided(events: &[Event], name: &str, by: Option<EgressProtocol>, what: EgressVerdict) -> bool {
    events.iter().any(|event| {
        matches!(&event.body, EventBody::EgressDecided { host, protocol, verdict, .. }
            if host == name && *protocol == by && *verdict == what)
    })
}

#[tokio::test]
async fn what_is_allowed_is_reached_by_every_process_with_the_operators_certificates_and_nothing_else_is() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let tls = TlsServer::start(folder.path(), "secure.example")?;
    let web = web().await?.port();
    let (secure, own) = (tls.port, tls.authority.display());
    let config = format!(
        "egress.certificates = \"{own}\"\n{}{}{}",
        here("secure.example", secure, ""),
        here("web.example", web, "methods = [\"GET\"]"),
        "[egress.hosts.\"inside.example\"]\naddresses = [\"127.0.0.1\"]\n",
    );
    let fetch = format!("curl -sS -m 20 https://secure.example:{secure}/ | grep s_server > /dev/null && echo fetched");
    let proxied = format!("-x http://proxy.ostler.internal:3128 https://secure.example:{secure}/");
    let commands = [
        // As a command, over IPv6, over the proxy, in the background, as another user, by another library.
        format!("{fetch}; curl -6 -sS -m 20 https://secure.example:{secure}/ | grep s_server > /dev/null && echo fetched"),
        format!("curl -sS -m 20 {proxied} | grep s_server > /dev/null && echo fetched"),
        format!("(setsid sh -c \"{fetch}\" > /tmp/out 2>&1 &); while ! [ -s /tmp/out ]; do :; done; cat /tmp/out"),
        format!("chmod 755 /root; python3 -c 'import os; os.setgid(65534); os.setuid(65534); os.execvp(\"sh\", [\"sh\", \"-c\", \"{fetch}\"])'"),
        format!("python3 -c 'import urllib.request as r; print(len(r.urlopen(\"https://secure.example:{secure}/\").read()) > 100)'"),
        // Without the operator's certificates the server is a stranger.
        format!("env -u CURL_CA_BUNDLE -u SSL_CERT_FILE curl -sS -m 20 https://secure.example:{secure}/ 2>&1"),
        // Plain HTTP, and what its rule refuses; over the proxy too.
        format!("curl -sS -m 20 http://web.example:{web}/x; curl -sS -m 20 -X POST http://web.example:{web}/x"),
        format!("curl -sS -m 20 -x http://proxy.ostler.internal:3128 http://web.example:{web}/y"),
        format!("curl -sS -m 20 -L http://web.example:{web}/moved"),
        // One name to look up, another in the greeting; a name that leads inwards.
        format!("curl -sS -m 20 --connect-to web.example:{web}:secure.example:{secure} https://web.example:{web}/ 2>&1"),
        "curl -sS -m 20 https://inside.example/ 2>&1; curl -sS -m 20 http://inside.example/".to_owned(),
        "ls -l /dev/ca-certificates.crt; rm -f /dev/ca-certificates.crt 2>&1; echo x 2>&1 > /dev/ca-certificates.crt; env | grep -c ca-certificates".to_owned(),
        "cat /run/ca-certificates.crt /etc/resolv.conf 2>/dev/null; git clone -q http://git.ostler.internal/demo.git /tmp/demo && echo cloned".to_owned(),
    ];
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let (_host, events, outputs) = run(config, &commands).await?;
    let output = |number: usize| outputs.get(number).map_or("", String::as_str);
    assert_eq!(output(0).trim(), "fetched\nfetched", "{outputs:#?}");
    for number in [1, 2, 3] {
        assert_eq!(output(number).trim(), "fetched", "{number}: {outputs:#?}");
    }
    assert_eq!(output(4).trim(), "True", "{outputs:#?}");
    assert!(output(5).contains("certificate"), "{outputs:#?}");
    assert!(
        output(6).contains("web GET /x") && output(6).contains("no rule for this host has this method (POST /x)"),
        "{outputs:#?}"
    );
    assert!(output(7).contains("web GET /y"), "{outputs:#?}");
    assert!(output(8).contains("no rule allows this host"), "{outputs:#?}");
    assert!(output(9).contains("alert"), "{outputs:#?}");
    assert!(output(10).contains("alert") && output(10).contains("its address is loopback"), "{outputs:#?}");
    assert!(output(11).contains("busy") && output(11).ends_with("9\n"), "{outputs:#?}");
    assert_eq!(output(12).trim(), "cloned", "{outputs:#?}");
    let (allowed, refused) = (EgressVerdict::Allowed, EgressVerdict::Refused);
    assert!(decided(&events, "secure.example", Some(EgressProtocol::Tls), allowed), "{events:#?}");
    assert!(decided(&events, "web.example", Some(EgressProtocol::Http), allowed), "{events:#?}");
    assert!(decided(&events, "web.example", Some(EgressProtocol::Http), refused), "{events:#?}");
    assert!(decided(&events, "inside.example", Some(EgressProtocol::Tls), refused), "{events:#?}");
    assert!(decided(&events, "169.254.169.254", Some(EgressProtocol::Http), refused), "{events:#?}");
    Ok(())
}

/// What a scan of every port of the sandbox and of everything around it finds open, and what else leaves.
const SCAN: &str = r#"python3 - <<'P'
import socket, os
def answers(family, address, port):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(10)
    try:
        s.connect((address, port)); s.send(b"GET / HTTP/1.0\r\n\r\n")
        said = s.recv(100)
        # 421 is the door's own answer to a request without a host.
        return bool(said) and b" 421 " not in said
    except OSError: return False
    finally: s.close()
def connects(family, address, port):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(10)
    # A connection to its own end is none.
    try: s.connect((address, port)); return s.getsockname() != s.getpeername()
    except OSError: return False
    finally: s.close()
known = socket.create_server(("::", 4444), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
for family, own in [(socket.AF_INET, ["127.0.0.1", "10.255.255.1"]), (socket.AF_INET6, ["::1", "fd6f:7374:6c65:72::1"])]:
    for address in own:
        print("own", address, [p for p in range(1, 65536) if p != 3129 and connects(family, address, p)])
    for address in AROUND:
        if (":" in address) == (family == socket.AF_INET6):
            print("around", address, [p for p in PORTS if answers(family, address, p)])
def attempt(name, make):
    try: make(); print(name, "left")
    except OSError as error: print(name, "stayed", error.errno)
def datagram(family, kind, protocol, address, data):
    def make():
        s = socket.socket(family, kind, protocol); s.settimeout(10); s.connect(address); s.send(data); s.recv(1)
    return make
echo = b"\x08\0\xf7\xff\0\0\0\0"
attempt("udp", datagram(socket.AF_INET, socket.SOCK_DGRAM, 0, ("8.8.8.8", 443), b"x"))
attempt("udp6", datagram(socket.AF_INET6, socket.SOCK_DGRAM, 0, ("2606:4700::1111", 443), b"x"))
attempt("ping", datagram(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, ("8.8.8.8", 0), echo))
attempt("ping6", datagram(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6, ("2606:4700::1111", 0), b"\x80" + echo[1:]))
attempt("raw", datagram(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, ("8.8.8.8", 0), echo))
attempt("raw6", datagram(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6, ("2606:4700::1111", 0), echo))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("sctp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect(("8.8.8.8", 80)))
attempt("broadcast", datagram(socket.AF_INET, socket.SOCK_DGRAM, 0, ("255.255.255.255", 67), b"x"))
attempt("multicast", datagram(socket.AF_INET6, socket.SOCK_DGRAM, 0, ("ff02::fb", 5353, 0, 1), b"x"))
P"#;

#[tokio::test]
async fn a_scan_from_inside_finds_nothing_but_the_door() -> Result<()> {
    // A rule for the ports that matter, so that what refuses is the address and not the port.
    let web = web().await?.port();
    let own = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut around: Vec<String> = own
        .lines()
        .filter_map(|line| line.trim().strip_prefix("|-- "))
        .filter(|address| !address.ends_with(".0") && !address.ends_with(".255"))
        .map(str::to_owned)
        .collect();
    around.extend(
        ["10.255.255.2", "169.254.169.254", "172.17.0.1", "192.168.0.1", "fd6f:7374:6c65:72::2", "fe80::1"]
            .map(str::to_owned),
    );
    around.retain(|address| address != "127.0.0.1");
    around.sort();
    around.dedup();
    let ports = format!("[{web}, 22, 80, 443, 3128, 3129, 5353]");
    let list: Vec<String> = around.iter().map(|address| format!("{address:?}")).collect();
    let scan = SCAN.replace("AROUND", &format!("[{}]", list.join(", "))).replace("PORTS", &ports);
    let (_host, _, outputs) = run(here("web.example", web, ""), &[&scan]).await?;
    let output = outputs.first().context("an output")?;
    let lines: Vec<&str> = output.lines().collect();
    let own: Vec<&&str> = lines.iter().filter(|line| line.starts_with("own")).collect();
    assert_eq!(own.len(), 4, "{output}");
    // DNS, which is redirected to the door, and what the scan put there to be found; the door's listener on 3129, which resets, is left
    // out. Not the API, which listens on this machine's loopback, and no other sandbox.
    assert!(own.iter().all(|line| line.ends_with("[53, 4444]")), "{output}");
    let seen: Vec<&&str> = lines.iter().filter(|line| line.starts_with("around")).collect();
    assert_eq!(seen.len(), around.len(), "{output}");
    assert!(seen.iter().all(|line| line.ends_with("[]")), "{output}");
    let left: Vec<&&str> = lines.iter().filter(|line| line.ends_with("left")).collect();
    assert_eq!(left, Vec::<&&str>::new(), "{output}");
    assert_eq!(lines.iter().filter(|line| line.contains(" stayed ")).count(), 10, "{output}");
    Ok(())
}

#[tokio::test]
async fn a_budget_goes_on_where_an_earlier_sandbox_and_an_earlier_host_left_it() -> Result<()> {
    const PIECE: usize = 10 << 20;
    let router = Router::new().fallback(async || vec![b'x'; PIECE]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!("egress.bytes_down = \"16M\"\n{}", here("web.example", port, ""));
    let fetch = script::shell(&format!("curl -s -m 20 http://web.example:{port}/ | wc -c"));
    let turns = script::script(&[&fetch, script::END, &fetch, script::END]);
    let mut host = Host::start(HostOptions { script: turns, config, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    let mut fetched = Vec::new();
    for _ in 0..2 {
        host.client.prompt(session, "fetch").await?;
        let events = host.client.wait_until_idle(session).await?;
        fetched.push(tool_outputs(&events).pop().context("the command ran")?.trim().parse::<usize>()?);
        // Ends the sandbox too.
        assert_eq!(host.stop()?, Some(0), "{}", host.log());
        host.launch().await?;
    }
    assert_eq!(fetched[0], PIECE);
    // Less by what the heads of the answers take, and by what had come and was on its way inside when the network was closed.
    let left = (16 << 20) - PIECE;
    assert!((left - (128 << 10)..left).contains(&fetched[1]), "{fetched:?}, {left} were left");
    let events = host.client.wait_until_idle(session).await?;
    let closed = "the network is closed: the session has received the 16777216 bytes that it may";
    assert!(
        events.iter().any(|event| matches!(&event.body, EventBody::Notice { text } if text == closed)),
        "{events:#?}"
    );
    let down =
        |event: &Event| if let EventBody::EgressTraffic { bytes_down, .. } = &event.body { *bytes_down } else { 0 };
    assert_eq!(events.iter().map(down).sum::<u64>(), 16 << 20, "the log has every byte");
    Ok(())
}
