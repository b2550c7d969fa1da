//! The way out of a sandbox: connections and bytes through the door, against the same program that goes there directly.
//!
//! One program measures on both sides, in batches that take turns as far as the sandbox's commands allow: direct, sandbox, direct.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ostler_tests::client::tool_outputs;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::record::Record;

const BATCHES: usize = 6;
const CONNECTS: usize = 50;
const TRANSFERS: usize = 3;

/// Bytes of one transfer.
const BYTES: usize = 256 << 20;

/// Connects and waits for the first byte, many times, then fetches; prints microseconds, one a line.
const CLIENT: &str = r#"
import socket, sys, time
host, port, connects, transfers = sys.argv[1], *map(int, sys.argv[2:])
address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
buffer = bytearray(1 << 20)
for number in range(connects + transfers):
    began = time.perf_counter()
    s = socket.create_connection(address)
    assert s.recv(1) == b"x"
    if number >= connects:
        s.sendall(b"b")
        while s.recv_into(buffer): pass
    print(round((time.perf_counter() - began) * 1e6))
    s.close()
"#;

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    let port = serve().await?;
    let arguments = format!("{port} {CONNECTS} {TRANSFERS}");
    let command = shell(&format!("python3 - server.example {arguments} <<'P'\n{CLIENT}P"));
    let mut turns: Vec<&str> = Vec::new();
    (0..BATCHES).for_each(|_| turns.extend([command.as_str(), END]));
    let config = format!(
        "[egress.hosts.\"server.example\"]\ntcp_ports = [{port}]\naddresses = [\"127.0.0.1\"]\nprivate = [\"127.0.0.0/8\"]\n"
    );
    let host = Host::start(HostOptions { script: script(&turns), config, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    let (mut ours, mut direct) = (Samples::default(), Samples::default());
    for _ in 0..BATCHES {
        let local = tokio::task::spawn_blocking(move || directly(port)).await??;
        direct.add(&local)?;
        host.client.prompt(session, "go").await?;
        let events = host.client.wait_until_idle(session).await?;
        ours.add(&tool_outputs(&events).pop().context("the command ran")?)?;
    }
    Ok(vec![
        Record::new("sandbox", "egress_connect", "<= direct + 1 ms", &ours.connects).beside("direct", &direct.connects),
        Record::rates("sandbox", "egress_throughput", "ratio >= 0.5", BYTES, &ours.transfers).beside_rates(
            "direct",
            BYTES,
            &direct.transfers,
        ),
    ])
}

#[derive(Default)]
struct Samples {
    connects: Vec<Duration>,
    transfers: Vec<Duration>,
}

impl Samples {
    /// Takes the output of one run of the client.
    fn add(&mut self, output: &str) -> Result<()> {
        let times = output.lines().map(|line| Ok(Duration::from_micros(line.trim().parse()?)));
        let times: Vec<Duration> = times.collect::<Result<_>>().with_context(|| format!("not times: {output}"))?;
        ensure!(times.len() == CONNECTS + TRANSFERS, "{} samples: {output}", times.len());
        self.connects.extend(&times[..CONNECTS]);
        self.transfers.extend(&times[CONNECTS..]);
        Ok(())
    }
}

/// The client on this machine.
fn directly(port: u16) -> Result<String> {
    let mut command = Command::new("python3");
    command.args(["-c", CLIENT, "127.0.0.1", &port.to_string(), &CONNECTS.to_string(), &TRANSFERS.to_string()]);
    let output = command.output().context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A server that says one byte to everyone, and many to those who answer.
async fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that is gone has what it wanted.
            tokio::spawn(async move { drop(answer(stream).await) });
        }
    });
    Ok(port)
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"x").await?;
    if stream.read_u8().await? == b'b' {
        let piece = vec![7; 1 << 20];
        for _ in 0..BYTES / piece.len() {
            stream.write_all(&piece).await?;
        }
    }
    Ok(())
}
