//! Random use of sandboxes for git by the host of one epoch: read, write, ended in every way in between.
//!
//! Each write makes a commit and a branch of its own. A branch counts as acknowledged once it is in the notes on this side;
//! whoever misses it at the end has found lost work.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest, Launcher};
use ostler_sandbox::wire::guest::ExitCause;
use ostler_sandbox::wire::launcher::{Files, REPOSITORY, RepositoryAccess};
use tokio::io::AsyncReadExt;

use super::chance::Chance;
use super::leftovers::note_group;
use crate::host::send_signal;
use crate::repository::git;
use crate::runtime::{DEADLINE, LIMITS, Runtime, command, new_id};

/// Repositories of the forge.
const REPOSITORIES: [&str; 2] = ["one", "two"];

/// Sandboxes for git at one time.
pub const AT_ONCE: u64 = 3;

/// Makes the forge, as the host's own user has it.
///
/// # Errors
/// When git fails.
pub fn prepare(runtime: &Runtime) -> Result<()> {
    for name in REPOSITORIES {
        let folder = runtime.forge().join(format!("{name}.git"));
        fs::create_dir_all(&folder)?;
        git(&folder, &["init", "--quiet", "--bare", "--template="])?;
        let tree = git(&folder, &["hash-object", "-t", "tree", "-w", "/dev/null"])?;
        let commit = git(&folder, &["commit-tree", "-m", "begin", tree.trim()])?;
        git(&folder, &["update-ref", "refs/heads/main", commit.trim()])?;
    }
    fs::set_permissions(runtime.forge(), fs::Permissions::from_mode(0o700))?;
    give_away(&runtime.forge(), runtime.host_uid())
}

fn give_away(tree: &Path, uid: u32) -> Result<()> {
    lchown(tree, Some(uid), Some(uid))?;
    if fs::symlink_metadata(tree)?.is_dir() {
        for entry in fs::read_dir(tree)? {
            give_away(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

/// One that uses git again and again.
pub struct GitUser {
    /// Where.
    pub runtime: Arc<Runtime>,
    /// The launcher.
    pub launcher: Launcher,
    /// Epoch of this host.
    pub epoch: u64,
    /// For the choices.
    pub chance: Chance,
}

/// A sandbox for git.
struct Open {
    id: String,
    pid: i32,
    guest: Guest,
}

impl GitUser {
    /// Uses git until then.
    ///
    /// # Errors
    /// When something fails or hangs.
    pub async fn used(mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            let name = REPOSITORIES[self.chance.below(REPOSITORIES.len() as u64) as usize];
            let (what, done) = match self.chance.below(2) {
                0 => ("git-read", tokio::time::timeout(DEADLINE * 2, self.read(name)).await),
                _ => ("git-write", tokio::time::timeout(DEADLINE * 2, self.write(name)).await),
            };
            done.with_context(|| format!("{what} of {name} hangs"))?.with_context(|| format!("{what} of {name}"))?;
            note(&self.runtime, what)?;
        }
        Ok(())
    }

    async fn read(&mut self, name: &str) -> Result<()> {
        let open = self.open(name, RepositoryAccess::Read).await?;
        let begun = self.chance.below(3);
        for _ in 0..=begun {
            let said = self.run(&open, "git rev-parse main").await?;
            ensure!(said.trim().len() == 40, "git says `{said}`");
        }
        self.end(open).await
    }

    async fn write(&mut self, name: &str) -> Result<()> {
        let open = self.open(name, RepositoryAccess::Write).await?;
        if self.chance.below(4) == 0 {
            // In the middle of whatever it does.
            let script = "while :; do git commit-tree -m unfinished main^{tree}; done";
            let running = open.guest.exec(exec(&self.call(), script)).await?;
            tokio::time::sleep(self.chance.between(Duration::ZERO, Duration::from_millis(50))).await;
            let ended = self.end(open).await;
            drop(running);
            return ended;
        }
        let branch = new_id();
        let script = format!("git update-ref refs/heads/{branch} $(git commit-tree -m work -p main main^{{tree}})");
        self.run(&open, &script).await?;
        acknowledge(&self.runtime, name, &branch)?;
        self.end(open).await
    }

    async fn open(&self, name: &str, access: RepositoryAccess) -> Result<Open> {
        let id = new_id();
        let opened = self.launcher.open_repository(&id, name, access, LIMITS, DEADLINE).await.context("open")?;
        note_group(&self.runtime, opened.info.pid, &id)?;
        let guest = Guest::connect(opened.control, self.epoch, Deadlines::default()).await.context("greet")?;
        Ok(Open { id, pid: opened.info.pid, guest })
    }

    /// Runs a script that must succeed, and gives what it says.
    async fn run(&self, open: &Open, script: &str) -> Result<String> {
        let mut running = open.guest.exec(exec(&self.call(), script)).await?;
        let mut output = Vec::new();
        running.output.read_to_end(&mut output).await?;
        let exit = running.exit().await?.exit.context("a call that ended has an exit")?;
        let said = String::from_utf8_lossy(&output).into_owned();
        ensure!(exit.cause == ExitCause::Exited && exit.status == 0, "{script}: {exit:?}: {said}");
        Ok(said)
    }

    /// Ends it as a host does, or kills its PID 1, or forgets it: then it ends with this host.
    async fn end(&mut self, open: Open) -> Result<()> {
        match self.chance.below(8) {
            0 => send_signal(u32::try_from(open.pid).context("a process number")?, rustix::process::Signal::KILL)?,
            1 => return Ok(()),
            _ => {}
        }
        self.launcher.destroy(&open.id, Files::Remove).await.context("end")?;
        Ok(())
    }

    fn call(&self) -> String {
        new_id()
    }

    /// Whether the repositories are whole and hold everything that was acknowledged.
    ///
    /// # Errors
    /// Names what is broken or lost.
    pub async fn check(self) -> Result<()> {
        for name in REPOSITORIES {
            let open = self.open(name, RepositoryAccess::Read).await?;
            self.run(&open, "git fsck --strict --no-dangling").await?;
            let found = self.run(&open, "git for-each-ref --format='%(refname:short)'").await?;
            let found: BTreeSet<&str> = found.lines().collect();
            let noted = acknowledged(&self.runtime, name)?;
            let lost: Vec<&str> = noted.lines().filter(|branch| !found.contains(branch)).collect();
            ensure!(lost.is_empty(), "lost: branches of {name} that were acknowledged: {lost:?}");
            self.launcher.destroy(&open.id, Files::Remove).await?;
        }
        Ok(())
    }
}

fn exec(call: &str, script: &str) -> ostler_sandbox::wire::guest::Exec {
    let mut exec = command(call, &["/usr/bin/sh", "-c", script]);
    exec.cwd = REPOSITORY.to_owned();
    let variables = [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
        ("GIT_AUTHOR_NAME", "Test Person"),
        ("GIT_AUTHOR_EMAIL", "person@example.org"),
        ("GIT_COMMITTER_NAME", "Test Person"),
        ("GIT_COMMITTER_EMAIL", "person@example.org"),
    ];
    exec.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    exec
}

fn notes(runtime: &Runtime, name: &str) -> PathBuf {
    runtime.folder().join(format!("acknowledged-{name}"))
}

fn acknowledged(runtime: &Runtime, name: &str) -> Result<String> {
    match fs::read_to_string(notes(runtime, name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => Ok(read?),
    }
}

/// One line at once: a host that is killed leaves all of it or nothing.
fn acknowledge(runtime: &Runtime, name: &str, branch: &str) -> Result<()> {
    append(&notes(runtime, name), branch)
}

fn note(runtime: &Runtime, what: &str) -> Result<()> {
    append(&runtime.folder().join("actions"), what)
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs::File::options().create(true).append(true).open(path)?;
    Ok(file.write_all(format!("{line}\n").as_bytes())?)
}
