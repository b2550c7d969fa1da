//! The short form of `cargo xtask torture sandbox`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ostler_tests::runtime::Runtime;
use ostler_tests::torture::{Creates, Leftovers, Soak, creates, leftovers, soak};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_sandboxes_are_made_beside_a_busy_host_and_nothing_is_left() -> Result<()> {
    let runtime = Arc::new(Runtime::prepare()?);
    let before = Leftovers::of(&runtime)?;
    let (launcher, _) = runtime.connect(1).await?;
    let pid = runtime.launcher_pid().context("the launcher runs")?;
    let open = leftovers::descriptors(pid)?;

    creates(&runtime, &launcher, Creates { count: 500, concurrency: 16, busy_threads: 8 }).await?;

    leftovers::ensure_descriptors(pid, open).await?;
    runtime.shut_down(launcher).await?;
    Leftovers::of(&runtime)?.ensure_nothing_since(&before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_random_use_with_kills_hangs_nothing_loses_nothing_and_leaves_nothing() -> Result<()> {
    let runtime = Runtime::prepare()?;
    let before = Leftovers::of(&runtime)?;
    let plan = Soak {
        duration: Duration::from_secs(60),
        sandboxes: 6,
        seed: u64::from(std::process::id()),
        program: PathBuf::from(env!("CARGO_BIN_EXE_ostler-torture")),
    };

    let done = soak(&runtime, &plan).await?;

    ensure!(done.hosts_killed > 0 && done.launchers_killed > 0, "nothing was killed: {done:?}");
    for action in ["begin", "count", "keep", "remove", "die", "stop", "background", "git-read", "git-write"] {
        ensure!(done.actions.contains_key(action), "{action} was never done: {done:?}");
    }
    Leftovers::of(&runtime)?.ensure_nothing_since(&before)
}
