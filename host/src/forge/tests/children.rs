//! Git as a child of the test, where there is no launcher: the same commands over the same kind of stream.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::process::GitCommand;
use super::super::running::{Ended, Exit, one_line};

const GRACE: Duration = Duration::from_secs(2);

pub(in super::super) struct ChildGit {
    child: Child,
    errors: Option<JoinHandle<Vec<u8>>>,
}

pub(in super::super) fn start(root: &Path, command: GitCommand) -> io::Result<(UnixStream, ChildGit)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let input = OwnedFd::from(theirs.try_clone()?);
    let mut child = Command::new("git")
        .env_clear()
        .envs(command.environment)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .args(command.arguments)
        .current_dir(root.join(format!("{}.git", command.repository)))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stderr = child.stderr.take();
    let errors = tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut said).await;
        }
        said
    });
    Ok((UnixStream::from_std(ours)?, ChildGit { child, errors: Some(errors) }))
}

impl ChildGit {
    pub(in super::super) async fn wait(&mut self) -> io::Result<Ended> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait().await?;
        let said = match self.errors.take() {
            Some(errors) => errors.await.unwrap_or_default(),
            None => Vec::new(),
        };
        let exit = Exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        Ok(Ended { exit, stderr: one_line(&said) })
    }

    pub(in super::super) async fn end(mut self) {
        self.signal(Signal::TERM);
        if timeout(GRACE, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = timeout(GRACE, self.child.wait()).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let process = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(process) = process {
            let _ = kill_process_group(process, signal);
        }
    }
}
