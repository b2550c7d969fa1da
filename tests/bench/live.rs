//! Sandboxes that live: claimed while warm, beside a neighbour that takes what it can get, among two hundred.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest, Launcher, Started};
use ostler_sandbox::wire::launcher::Files;
use ostler_tests::runtime::{DEADLINE, LIMITS, Runtime, command, new_id};
use std::io::Read as _;
use tokio::io::AsyncReadExt;

use crate::record::Record;
use crate::sandbox::{exec, plain};

/// A program of the image, which the machine has too.
const TRUE: &str = "/bin/true";
const ECHO: &str = "/bin/echo";

const CLAIMS: usize = 60;
/// Times that the neighbour begins and ends, and commands in each of its halves.
const ROUNDS: usize = 4;
const IN_ROUND: usize = 40;
const LIVE: usize = 200;
const AMONG: usize = 400;

/// What the neighbour does until it is ended: processor, disk, forks.
const NEIGHBOUR: &str = "\
while :; do :; done &
while :; do :; done &
while :; do dd if=/dev/zero of=/tmp/burn bs=1M count=64 conv=fsync 2>/dev/null; done &
while :; do /bin/true; done &
wait";

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    let runtime = Runtime::prepare()?;
    let (launcher, _) = runtime.connect(1).await?;
    let mut records = vec![claim(&runtime, &launcher).await?];
    records.push(neighbour(&runtime, &launcher).await?);
    records.push(live(&runtime, &launcher).await?);
    runtime.shut_down(launcher).await?;
    Ok(records)
}

async fn create(runtime: &Runtime, launcher: &Launcher) -> Result<(String, Started)> {
    let id = new_id();
    let started = launcher.create(&id, &runtime.image, LIMITS, DEADLINE).await?;
    Ok((id, started))
}

async fn in_use(runtime: &Runtime, launcher: &Launcher) -> Result<(String, Guest)> {
    let (id, started) = create(runtime, launcher).await?;
    Ok((id, Guest::connect(started.control, 1, Deadlines::default()).await?))
}

/// From handing the identity over to the first byte of the first command, of sandboxes whose guest has heard of nobody.
async fn claim(runtime: &Runtime, launcher: &Launcher) -> Result<Record> {
    let mut warm = Vec::with_capacity(CLAIMS);
    for _ in 0..CLAIMS {
        warm.push(create(runtime, launcher).await?);
    }
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for (id, started) in warm {
        let identity = [("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")];
        let identity = identity.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let began = Instant::now();
        let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
        let mut call = command("first", &[ECHO, "hello"]);
        call.env.extend(identity);
        let mut running = guest.exec(call).await?;
        running.output.read_u8().await.context("the first byte")?;
        ours.push(began.elapsed());
        running.exit().await?;
        floor.push(first_byte()?);
        launcher.destroy(&id, Files::Remove).await?;
    }
    Ok(Record::new("sandbox", "claim", "p50 <= 3, p95 <= 15", &ours).beside("fork+exec", &floor))
}

/// The floor: fork, exec and the first byte of the same program.
fn first_byte() -> Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(ECHO).arg("hello").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("its output")?;
    let mut byte = [0];
    output.read_exact(&mut byte)?;
    let took = began.elapsed();
    ensure!(child.wait()?.success());
    Ok(took)
}

async fn neighbour(runtime: &Runtime, launcher: &Launcher) -> Result<Record> {
    let (burner, burning) = in_use(runtime, launcher).await?;
    let (quiet, guest) = in_use(runtime, launcher).await?;
    let (mut beside, mut alone, mut number) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        for _ in 0..IN_ROUND {
            number += 1;
            alone.push(exec(&guest, number, TRUE).await?);
        }
        let call = format!("burn-{round}");
        let mut running = burning.exec(command(&call, &["/bin/sh", "-c", NEIGHBOUR])).await?;
        for _ in 0..IN_ROUND {
            number += 1;
            beside.push(exec(&guest, number, TRUE).await?);
        }
        burning.stop(&call, Duration::ZERO).await?;
        running.output.read_to_end(&mut Vec::new()).await?;
        running.exit().await?;
    }
    for id in [burner, quiet] {
        launcher.destroy(&id, Files::Remove).await?;
    }
    Ok(Record::new("sandbox", "neighbour", "ratio <= 3", &beside).beside("alone", &alone))
}

async fn live(runtime: &Runtime, launcher: &Launcher) -> Result<Record> {
    let (first, guest) = in_use(runtime, launcher).await?;
    let (mut among, mut alone, mut number) = (Vec::new(), Vec::new(), 0);
    // Warm, as the others will be.
    for _ in 0..IN_ROUND {
        number += 1;
        exec(&guest, number, TRUE).await?;
        plain(TRUE)?;
    }
    for _ in 0..AMONG / 2 {
        number += 1;
        alone.push(exec(&guest, number, TRUE).await?);
    }
    let mut all = vec![(first, guest)];
    while all.len() < LIVE {
        all.push(in_use(runtime, launcher).await?);
    }
    for (_, guest) in &all {
        number += 1;
        exec(guest, number, TRUE).await?;
    }
    for (_, guest) in all.iter().cycle().take(AMONG) {
        number += 1;
        among.push(exec(guest, number, TRUE).await?);
    }
    let (_, guest) = all.remove(0);
    for (id, _) in all {
        launcher.destroy(&id, Files::Remove).await?;
    }
    for _ in 0..AMONG / 2 {
        number += 1;
        alone.push(exec(&guest, number, TRUE).await?);
    }
    Ok(Record::new("sandbox", "live_200", "ratio <= 3", &among).beside("1 live", &alone))
}
