//! Random use for some time, with the host or the launcher killed every few seconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use super::chance::Chance;
use super::user::LAUNCHER_GONE;
use crate::host::send_signal;
use crate::runtime::{Runtime, new_id};

/// Time in which a user must have noticed that its launcher is gone, and in which the last one must have cleaned up.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long and how rough.
#[derive(Clone, Debug)]
pub struct Soak {
    /// How long.
    pub duration: Duration,
    /// Sandboxes that are used at one time.
    pub sandboxes: usize,
    /// For the choices.
    pub seed: u64,
    /// The program whose `user` task is [`super::user::run`].
    pub program: PathBuf,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soaked {
    /// Hosts that were killed.
    pub hosts_killed: usize,
    /// Launchers that were killed.
    pub launchers_killed: usize,
    /// How often each action was done.
    pub actions: BTreeMap<String, usize>,
}

/// Uses the runtime's sandboxes; at the end it is empty and its launcher has ended.
///
/// # Errors
/// Names what failed, hung or was lost.
pub async fn soak(runtime: &Runtime, plan: &Soak) -> Result<Soaked> {
    rough_use(runtime, plan)
        .await
        .with_context(|| format!("seed {}; the launchers said:\n{}", plan.seed, runtime.log()))
}

async fn rough_use(runtime: &Runtime, plan: &Soak) -> Result<Soaked> {
    let folder = runtime.folder();
    fs::create_dir_all(folder.join("acknowledged"))?;
    super::git::prepare(runtime)?;
    let slots: Vec<String> = (0..plan.sandboxes).map(|_| new_id()).collect();
    fs::write(folder.join("slots"), slots.join("\n"))?;
    let mut chance = Chance::new(plan.seed);
    let mut done = Soaked::default();
    let until = Instant::now() + plan.duration;
    let mut epoch = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        epoch += 1;
        let mut user = start(runtime, plan, epoch, chance.number(), left, Finish::No)?;
        let calm = chance.between(Duration::from_millis(300), Duration::from_secs(4)).min(left);
        if let Ok(ended) = tokio::time::timeout(calm, user.wait()).await {
            expect(user, ended?, &[0]).await?;
            continue;
        }
        match chance.below(10) {
            0..6 => {
                user.start_kill()?;
                done.hosts_killed += 1;
            }
            fate => {
                if let Some(launcher) = runtime.launcher_pid() {
                    send_signal(launcher, rustix::process::Signal::KILL)?;
                    done.launchers_killed += 1;
                    // Or the next host would greet one that is not quite dead.
                    runtime.wait_for_end(launcher).await?;
                }
                if fate == 9 {
                    user.start_kill()?;
                    done.hosts_killed += 1;
                } else {
                    let ended = tokio::time::timeout(PATIENCE, user.wait()).await;
                    let ended = ended.context("the host hangs after its launcher was killed")??;
                    expect(user, ended, &[0, LAUNCHER_GONE]).await?;
                    continue;
                }
            }
        }
        user.wait().await?;
    }
    let (launcher, _) = runtime.connect(epoch + 1).await?;
    let pid = runtime.launcher_pid().context("the launcher runs")?;
    drop(launcher);
    let mut last = start(runtime, plan, epoch + 2, chance.number(), Duration::from_secs(2), Finish::Yes)?;
    let ended = tokio::time::timeout(PATIENCE, last.wait()).await.context("the last host hangs")??;
    expect(last, ended, &[0]).await?;
    runtime.wait_for_end(pid).await?;
    for action in fs::read_to_string(folder.join("actions"))?.lines() {
        *done.actions.entry(action.to_owned()).or_default() += 1;
    }
    Ok(done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Yes,
    No,
}

fn start(runtime: &Runtime, plan: &Soak, epoch: u64, seed: u64, left: Duration, finish: Finish) -> Result<Child> {
    let mut command = Command::new(&plan.program);
    command.arg("user").arg(runtime.folder()).arg(epoch.to_string()).arg(seed.to_string());
    command.arg(left.as_millis().to_string()).arg(if finish == Finish::Yes { "finish" } else { "leave" });
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().with_context(|| format!("start {}", plan.program.display()))
}

/// Fails, with what the user said, where it ended otherwise.
async fn expect(user: Child, ended: ExitStatus, codes: &[u8]) -> Result<()> {
    let output = user.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let Some(code) = ended.code() else { bail!("a host ended with {ended}: {said}") };
    ensure!(codes.iter().any(|expected| i32::from(*expected) == code), "a host ended with {code}: {said}");
    Ok(())
}
