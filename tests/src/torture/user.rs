//! Random use of a few sandboxes by the host of one epoch, a process of its own that may be killed at any time.
//!
//! ```text
//!            create, reclaim                     destroy and keep, PID 1 killed
//!  no guest ─────────────────► in use: commands, ────────────────────────────► no guest
//!                              files, stops      destroy and remove: nothing is expected any more
//! ```
//!
//! Each sandbox has a file with a number in its workspace. A number counts as acknowledged once it is in the notes on this
//! side; whoever finds a lower one later has found lost work.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ostler_sandbox::client::{Deadlines, Guest, GuestError, Launcher, LauncherClientError, Started};
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::{Exec, ExitCause};
use ostler_sandbox::wire::launcher::Files;
use tokio::io::AsyncReadExt;

use super::chance::Chance;
use super::git::{self, GitUser};
use super::leftovers::note_group;
use crate::runtime::{DEADLINE, LIMITS, Runtime, command};

/// Exit status of a user whose launcher is gone.
pub const LAUNCHER_GONE: u8 = 75;

/// The file with the number.
const COUNTER: &str = "counter";

/// What is used, for how long.
#[derive(Clone, Debug)]
pub struct Use {
    /// Folder of the runtime.
    pub folder: PathBuf,
    /// Epoch of this host.
    pub epoch: u64,
    /// For the choices.
    pub seed: u64,
    /// How long.
    pub duration: Duration,
    /// Whether everything is to be removed at the end and the launcher to be ended.
    pub finish: bool,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// The time is over.
    InTime,
    /// The launcher is gone; this is what was noticed of it.
    LauncherGone(anyhow::Error),
}

/// Uses the runtime's sandboxes.
///
/// # Errors
/// When something fails or hangs although the launcher lives, or work is lost.
pub async fn run(plan: Use) -> Result<Ended> {
    let runtime = Arc::new(Runtime::at(&plan.folder)?);
    let (launcher, living) = match runtime.connect(plan.epoch).await {
        // It was killed in the middle of the greeting. (Where it cannot even start, nobody has killed one.)
        Err(error) if runtime.launcher_pid().is_none() => return Ok(Ended::LauncherGone(error)),
        connected => connected?,
    };
    let living: Arc<BTreeSet<String>> = Arc::new(living.into_iter().collect());
    let until = Instant::now() + plan.duration;
    let slots = fs::read_to_string(plan.folder.join("slots")).context("the runtime's folder names the sandboxes")?;
    let mut users = tokio::task::JoinSet::new();
    for (number, sandbox) in (1..).zip(slots.lines()) {
        let slot = Slot {
            runtime: Arc::clone(&runtime),
            launcher: launcher.clone(),
            epoch: plan.epoch,
            sandbox: sandbox.to_owned(),
            chance: Chance::new(plan.seed.wrapping_add(number)),
            lives: living.contains(sandbox),
            in_use: None,
            calls: 0,
        };
        users.spawn(slot.used(until, plan.finish));
    }
    let git_user = |number: u64| GitUser {
        runtime: Arc::clone(&runtime),
        launcher: launcher.clone(),
        epoch: plan.epoch,
        chance: Chance::new(plan.seed.wrapping_sub(number)),
    };
    for number in 1..=git::AT_ONCE {
        users.spawn(git_user(number).used(until));
    }
    while let Some(ended) = users.join_next().await {
        let Err(error) = ended? else { continue };
        // A launcher that was killed shows as many things; that it is gone shows soon.
        if tokio::time::timeout(Duration::from_secs(5), launcher.gone()).await.is_ok() {
            return Ok(Ended::LauncherGone(error));
        }
        return Err(error);
    }
    if plan.finish {
        git_user(0).check().await.context("check the repositories")?;
        launcher.shutdown().await.context("shut down")?;
    }
    Ok(Ended::InTime)
}

/// One sandbox and what is known of it.
struct Slot {
    runtime: Arc<Runtime>,
    launcher: Launcher,
    epoch: u64,
    sandbox: String,
    chance: Chance,
    /// Whether the launcher had it when this host came.
    lives: bool,
    in_use: Option<InUse>,
    calls: u64,
}

struct InUse {
    guest: Guest,
    /// Process number of its PID 1.
    pid: i32,
    counter: u64,
}

impl Slot {
    async fn used(mut self, until: Instant, finish: bool) -> Result<()> {
        while Instant::now() < until {
            let sandbox = self.sandbox.clone();
            let (name, done) = match self.in_use.take() {
                None => ("begin", Box::pin(tokio::time::timeout(DEADLINE * 2, self.begin())).await),
                Some(in_use) => {
                    let (name, action) = ACTIONS[self.chance.below(ACTIONS.len() as u64) as usize];
                    (name, tokio::time::timeout(DEADLINE * 2, self.act(action, in_use)).await)
                }
            };
            done.with_context(|| format!("{name} of {sandbox} hangs"))?
                .with_context(|| format!("{name} of {sandbox}"))?;
            self.note(name)?;
        }
        if finish {
            self.destroy(Files::Remove).await?;
        }
        Ok(())
    }

    /// Takes the sandbox up where it lives, else makes it.
    async fn begin(&mut self) -> Result<()> {
        let acknowledged = self.acknowledged()?;
        let lived = std::mem::take(&mut self.lives);
        let started = if lived {
            self.launcher.reclaim(&self.sandbox).await?
        } else {
            let started = self.create().await?;
            ensure!(
                started.info.restored || acknowledged == 0,
                "lost: {acknowledged} was acknowledged, no files are left"
            );
            note_group(&self.runtime, started.info.pid, &self.sandbox)?;
            started
        };
        let guest = match Guest::connect(started.control, self.epoch, Deadlines::default()).await {
            // The host before this one had just killed it.
            Err(GuestError::Link(_)) if lived => return self.wait_for_death().await,
            connected => connected?,
        };
        let counter = if acknowledged == 0 { 0 } else { read_counter(&guest).await? };
        ensure!(counter >= acknowledged, "lost: {acknowledged} was acknowledged, {counter} is there");
        self.in_use = Some(InUse { guest, pid: started.info.pid, counter });
        Ok(())
    }

    async fn create(&self) -> Result<Started> {
        let create = || self.launcher.create(&self.sandbox, &self.runtime.image, LIMITS, DEADLINE);
        match create().await {
            // The host before this one was killed while it made or ended it.
            Err(LauncherClientError::Refused { source, .. }) if source.kind == FailureKind::Exists => {
                self.launcher.destroy(&self.sandbox, Files::Keep).await?;
                Ok(create().await?)
            }
            created => Ok(created?),
        }
    }

    async fn act(&mut self, action: Action, mut in_use: InUse) -> Result<()> {
        match action {
            Action::Echo => self.expect(&in_use, &["/bin/echo", "hello"], 6).await?,
            Action::Output => self.expect(&in_use, &["/usr/bin/head", "-c", "1000000", "/dev/zero"], 1_000_000).await?,
            Action::Background => {
                let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo started";
                self.expect(&in_use, &["/bin/sh", "-c", script], 8).await?;
            }
            Action::Forks => {
                let script = "for i in $(seq 60); do sleep 0.05 & done; wait; echo done";
                self.expect(&in_use, &["/bin/sh", "-c", script], 5).await?;
            }
            Action::Stop => self.stop(&in_use).await?,
            Action::Count => {
                in_use.counter += 1;
                in_use.guest.write_file(COUNTER, in_use.counter.to_string().as_bytes(), 0o644).await?;
                self.acknowledge(in_use.counter)?;
                let found = read_counter(&in_use.guest).await?;
                ensure!(found == in_use.counter, "{} was written, {found} is read", in_use.counter);
            }
            Action::List => {
                in_use.guest.list("", 100).await?;
            }
            Action::Reclaim => {
                drop(in_use);
                self.lives = true;
                return Ok(());
            }
            Action::Keep => return self.destroy(Files::Keep).await,
            Action::Remove => return self.destroy(Files::Remove).await,
            Action::Die => return self.die(in_use.pid).await,
        }
        self.in_use = Some(in_use);
        Ok(())
    }

    /// Runs a command that must succeed with so many bytes of output.
    async fn expect(&mut self, in_use: &InUse, argv: &[&str], bytes: usize) -> Result<()> {
        let exec = self.exec(argv);
        let call = exec.call.clone();
        let mut running = in_use.guest.exec(exec).await?;
        let mut output = Vec::new();
        running.output.read_to_end(&mut output).await?;
        let exit = running.exit().await?.exit.context("a call that ended has an exit")?;
        let succeeded = exit.cause == ExitCause::Exited && exit.status == 0;
        ensure!(succeeded && output.len() == bytes, "{argv:?}: {exit:?} with {} bytes", output.len());
        Ok(in_use.guest.forget(&call).await?)
    }

    async fn stop(&mut self, in_use: &InUse) -> Result<()> {
        let exec = self.exec(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"]);
        let call = exec.call.clone();
        let mut running = in_use.guest.exec(exec).await?;
        in_use.guest.stop(&call, Duration::from_millis(50)).await?;
        let mut output = Vec::new();
        running.output.read_to_end(&mut output).await?;
        let exit = running.exit().await?.exit.context("a call that ended has an exit")?;
        ensure!(exit.cause == ExitCause::Stopped, "{exit:?}");
        Ok(in_use.guest.forget(&call).await?)
    }

    fn exec(&mut self, argv: &[&str]) -> Exec {
        self.calls += 1;
        command(&format!("{}-{}", self.epoch, self.calls), argv)
    }

    async fn destroy(&mut self, files: Files) -> Result<()> {
        if files == Files::Remove {
            // Whether it was removed when this process is killed in between, nobody knows.
            self.acknowledge(0)?;
        }
        self.lives = false;
        self.launcher.destroy(&self.sandbox, files).await?;
        Ok(())
    }

    /// Kills PID 1.
    async fn die(&mut self, pid: i32) -> Result<()> {
        let pid = u32::try_from(pid).context("a process number")?;
        crate::host::send_signal(pid, rustix::process::Signal::KILL)?;
        self.wait_for_death().await
    }

    async fn wait_for_death(&self) -> Result<()> {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.launcher.reclaim(&self.sandbox).await {
                Err(LauncherClientError::Refused { source, .. }) if source.kind == FailureKind::NotFound => {
                    return Ok(());
                }
                // It has not noticed, or is still cleaning up.
                Ok(_) | Err(LauncherClientError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > until {
                bail!("the launcher did not notice that PID 1 was killed");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn notes(&self) -> PathBuf {
        self.runtime.folder().join("acknowledged").join(&self.sandbox)
    }

    fn acknowledged(&self) -> Result<u64> {
        match fs::read_to_string(self.notes()) {
            Ok(text) => Ok(text.trim().parse()?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn acknowledge(&self, counter: u64) -> Result<()> {
        let notes = self.notes();
        let half_made = notes.with_extension("new");
        fs::write(&half_made, counter.to_string())?;
        Ok(fs::rename(half_made, notes)?)
    }

    /// One line for each action that was done.
    fn note(&self, name: &str) -> Result<()> {
        let path = self.runtime.folder().join("actions");
        let mut file = fs::File::options().create(true).append(true).open(path)?;
        Ok(file.write_all(format!("{name}\n").as_bytes())?)
    }
}

#[derive(Clone, Copy)]
enum Action {
    Echo,
    Output,
    Background,
    Forks,
    Stop,
    Count,
    List,
    Reclaim,
    Keep,
    Remove,
    Die,
}

/// What is done, as often as it stands here.
const ACTIONS: [(&str, Action); 18] = [
    ("echo", Action::Echo),
    ("echo", Action::Echo),
    ("echo", Action::Echo),
    ("output", Action::Output),
    ("output", Action::Output),
    ("background", Action::Background),
    ("forks", Action::Forks),
    ("stop", Action::Stop),
    ("stop", Action::Stop),
    ("count", Action::Count),
    ("count", Action::Count),
    ("count", Action::Count),
    ("list", Action::List),
    ("reclaim", Action::Reclaim),
    ("keep", Action::Keep),
    ("keep", Action::Keep),
    ("remove", Action::Remove),
    ("die", Action::Die),
];

async fn read_counter(guest: &Guest) -> Result<u64> {
    let content = guest.read_file(COUNTER, 100).await.context("read the counter")?;
    Ok(String::from_utf8(content.bytes)?.parse()?)
}
