//! A sandbox that reaches a limit: what the agent and people see, and what is left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use ostler_protocol::EventBody;
use ostler_protocol::event::TurnOutcome;
use ostler_tests::host::HostOptions;
use ostler_tests::repository::Repository;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Client, Host};

/// Runs a command that ends its sandbox, and one that looks for what the first had written. Gives the reasons that were told.
async fn lost(config: &str, greedy: &str, words: &str) -> Result<Vec<String>> {
    let turns = script(&[
        &shell(&format!("echo kept > kept.txt; {greedy}")),
        // The model is told which limit it was.
        &format!(
            "expect = [{{ call = 0, outcome = \"unknown\", pattern = \"the sandbox ended: {words}\" }}]\n{}",
            shell("cat kept.txt; rm -f large")
        ),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"kept\" }}]\n{END}"),
    ]);
    let host = Host::start(HostOptions { script: turns, config: config.into(), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let outcome = events.iter().find_map(|event| match &event.body {
        EventBody::TurnFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(outcome.context("the turn ends")?, &TurnOutcome::Done, "{events:#?}");
    let reasons = events.into_iter().filter_map(|event| match event.body {
        EventBody::WorkspaceLost { reason, .. } => Some(reason),
        _ => None,
    });
    Ok(reasons.collect())
}

#[tokio::test]
async fn a_command_that_takes_all_memory_ends_the_sandbox_with_the_limit_named_and_the_files_kept() -> Result<()> {
    let reasons = lost("sandbox.memory = \"256M\"", "tail /dev/zero; sleep 4000", "out of memory: used").await?;
    let [reason] = &reasons[..] else { anyhow::bail!("{reasons:?}") };
    assert!(reason.starts_with("out of memory: used 25") && reason.ends_with(" of 256.0 MiB"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_fills_the_disk_ends_the_sandbox_with_the_limit_named_and_the_files_kept() -> Result<()> {
    let greedy = "dd if=/dev/zero of=large bs=1M count=300; sleep 4000";
    let reasons = lost("sandbox.disk = \"100M\"", greedy, "disk: used").await?;
    let [reason] = &reasons[..] else { anyhow::bail!("{reasons:?}") };
    assert!(reason.starts_with("disk: used ") && reason.ends_with(" MiB of 100.0 MiB"), "{reason}");
    Ok(())
}

/// Names of the children of a process, looked at again and again until told to stop.
fn watch_children(parent: u32, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<String>> {
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
                let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if field("PPid:") == Some(&parent.to_string()) {
                    seen.extend(field("Name:").map(str::to_owned));
                }
            }
        }
        seen
    })
}

#[tokio::test]
async fn the_host_starts_no_process_while_a_session_runs() -> Result<()> {
    let (host, session) = Host::with_session(script(&[&shell("echo more > b"), END])).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch_children(host.pid()?, Arc::clone(&stop));
    let client: &Client = &host.client;
    client.prompt(session, "go").await?;
    client.wait_until_idle(session).await?;
    stop.store(true, Ordering::Relaxed);
    let seen = watching.join().map_err(|_| anyhow::anyhow!("the watcher ends"))?;
    // Commands run below the launcher, and so does git.
    assert_eq!(seen, BTreeSet::from(["ostler-launcher".to_owned()]));
    Ok(())
}
