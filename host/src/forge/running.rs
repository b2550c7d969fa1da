//! A git that runs, wherever it runs: its stream, its end, and ending it.
//!
//! ```text
//!  forge ──GitCommand──► GitRunner ──► sandbox of the repository (sandboxes.rs) ──► git
//!    ◄──── RunningGit: one socket, which is git's input and output ─────────────────┘
//! ```
//!
//! In a host git never runs outside of a sandbox. Tests of the forge alone run it as a child, without a launcher.

use std::path::Path;
use std::sync::Arc;

use ostler_sandbox::client::{GuestError, Launcher, LauncherClientError};
use ostler_sandbox::wire::FailureKind;
use tokio::net::UnixStream;

use super::places::Place;
use super::process::GitCommand;
use super::sandboxes::{SandboxedGit, Sandboxes};

/// Exit status of what was killed.
const KILLED: i32 = 128 + 9;

/// Why git did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The launcher made no sandbox.
    #[error("no sandbox for git could be made")]
    Make(#[source] LauncherClientError),
    /// The sandbox was made and does not answer.
    #[error("the sandbox for git does not answer")]
    Greet(#[source] GuestError),
    /// It took too long.
    #[error("no sandbox for git was ready within {seconds} s")]
    Late {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The sandbox did not start it.
    #[error("git could not be started in its sandbox, where the machine's /usr is all there is of programs")]
    Start(#[source] GuestError),
    /// The sandbox, or what is known of the call, is gone.
    #[error("the sandbox of git ended in the middle")]
    Lost(#[source] GuestError),
    /// Its input or output failed.
    #[error("the connection to git failed")]
    Stream(#[source] std::io::Error),
}

impl GitError {
    /// Whether the same may work a moment later.
    pub(super) fn is_passing(&self) -> bool {
        // What the sandbox refuses for another reason than its limits it will refuse again.
        !matches!(self, Self::Start(GuestError::Refused { failure, .. }) if failure.kind != FailureKind::Limit)
    }
}

/// How git ended: its exit status, or 128 and the signal that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub(super) i32);

impl Exit {
    /// Whether it ended well.
    pub(super) fn success(self) -> bool {
        self.0 == 0
    }

    /// Whether it may have had no chance to clean up behind itself: a signal ended it, or nobody knows. 128 and 129 are git's own.
    pub(super) fn may_have_left(self) -> bool {
        !(0..=129).contains(&self.0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == KILLED {
            return f.write_str("signal 9: it wanted more memory than its sandbox may have, or was ended");
        }
        write!(f, "exit status {}", self.0)
    }
}

/// A git that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// The end of its error output as one line, where it failed.
    pub(super) stderr: String,
}

/// Where git runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GitRunner(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Sandboxes(Arc<Sandboxes>),
    #[cfg(test)]
    Children,
}

impl GitRunner {
    /// Runs each git in a sandbox that holds its repository and nothing else. To be called in a runtime.
    #[must_use]
    pub fn in_sandboxes(launcher: Launcher, epoch: u64) -> Self {
        Self(Kind::Sandboxes(Sandboxes::new(launcher, epoch)))
    }

    /// Runs git as children of the test.
    #[cfg(test)]
    pub(crate) fn children() -> Self {
        Self(Kind::Children)
    }

    /// Starts git on a repository of the forge at `root`. The socket is git's input and output; shutting it down for writing is
    /// the end of input. Git is ended when it is dropped.
    pub(super) async fn start(
        &self,
        root: &Path,
        command: GitCommand,
        place: Place,
    ) -> Result<(UnixStream, RunningGit), GitError> {
        let (stream, process) = match &self.0 {
            Kind::Sandboxes(sandboxes) => {
                let (stream, git) = sandboxes.start(root, command).await?;
                (stream, Process::Sandboxed(git))
            }
            #[cfg(test)]
            Kind::Children => {
                let (stream, child) = super::tests::children::start(root, command).map_err(GitError::Stream)?;
                (stream, Process::Child(child))
            }
        };
        Ok((stream, RunningGit { process, _place: place }))
    }
}

/// A running git. It holds its place among the permitted processes until it is gone. Dropping it ends it.
pub(super) struct RunningGit {
    process: Process,
    _place: Place,
}

enum Process {
    Sandboxed(SandboxedGit),
    #[cfg(test)]
    Child(super::tests::children::ChildGit),
}

impl RunningGit {
    /// Waits for the end.
    pub(super) async fn wait(&mut self) -> Result<Ended, GitError> {
        match &mut self.process {
            Process::Sandboxed(git) => git.wait().await,
            #[cfg(test)]
            Process::Child(git) => git.wait().await.map_err(GitError::Stream),
        }
    }

    /// Ends git and everything that it started, within a few seconds: politely first, so that it removes its temporary files.
    pub(super) async fn end(self) {
        match self.process {
            Process::Sandboxed(git) => git.end().await,
            #[cfg(test)]
            Process::Child(git) => git.end().await,
        }
    }
}

/// A text as one line, its end only.
pub(super) fn one_line(bytes: &[u8]) -> String {
    /// How much of git's error output is kept for messages.
    const TAIL: usize = 2048;
    let start = bytes.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&bytes[start..]).trim().replace('\n', "; ")
}
