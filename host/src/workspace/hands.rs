//! The agent's hands: tools over a sandbox's guest.
//!
//! A command's output is read to its end and passed on live; a stop ends the command in the sandbox and reports what it
//! wrote until then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ostler_protocol::event::{CutOff, Person, ToolOutcome};
use ostler_protocol::{CallId, Delta};
use ostler_sandbox::client::{GuestError, Running};
use ostler_sandbox::wire::guest::{Entry, EntryKind, Exec, ExitCause, Overflow, Stdio, WORKSPACE};
use tokio::io::AsyncReadExt;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::Workspace;
use super::background::{Background, Begun};
use super::services::ServiceError;
use crate::agent::tools::{
    BackgroundOutput, BackgroundView, Command, FileContent, Hands, HandsError, Lost, ToolOutput,
};

/// Output of one command before it is ended.
pub(super) const OUTPUT_LIMIT: u64 = 8 * 1024 * 1024;

/// Bytes that a guest may be over the limit, and time that it may be over a deadline, before it is given up.
const SLACK: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time of a command that an earlier host started.
const ADOPTED: Duration = Duration::from_secs(3600);

/// For whom services are stopped and started by these hands.
const AGENT: &str = "the agent";

/// Time between SIGTERM and SIGKILL when a command is stopped: a stop must be done within a second.
const STOP_GRACE: Duration = Duration::from_millis(300);

/// Most names of a folder that a listing returns.
const LIST_MAX: u32 = 1000;

/// The hands for one turn: commands run with its author's identity and end when it is cancelled.
pub struct TurnHands {
    workspace: Arc<Workspace>,
    author: Person,
    cancel: CancellationToken,
    deltas: broadcast::Sender<Delta>,
}

impl TurnHands {
    /// Hands over `workspace` for a turn of `author`.
    #[must_use]
    pub fn new(
        workspace: Arc<Workspace>,
        author: Person,
        cancel: CancellationToken,
        deltas: broadcast::Sender<Delta>,
    ) -> Self {
        Self { workspace, author, cancel, deltas }
    }

    /// What became of a command that an earlier host started: waits for its end where it still runs. `None` where the
    /// sandbox knows nothing of it: it never came there, because what ended is forgotten only when that is in the log.
    pub async fn adopt(&self, call: CallId) -> Result<Option<ToolOutput>, HandsError> {
        match self.workspace.guest.attach(&call.to_string(), 0).await {
            Ok(running) => self.follow_within(call, running, ADOPTED).await.map(Some),
            Err(GuestError::Refused { failure, .. }) if failure.kind == ostler_sandbox::wire::FailureKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(hands_error(error)),
        }
    }

    /// Follows a command that the guest should end within `limit`.
    async fn follow_within(&self, call: CallId, running: Running, limit: Duration) -> Result<ToolOutput, HandsError> {
        let followed = tokio::time::timeout(limit + PATIENCE, self.follow(call, running)).await;
        followed.unwrap_or_else(|_| Err(silent("the guest did not end a command in time")))
    }

    async fn follow(&self, call: CallId, mut running: Running) -> Result<ToolOutput, HandsError> {
        let name = call.to_string();
        let mut bytes = Vec::new();
        let mut piece = vec![0; 16 * 1024];
        let mut stopped = false;
        loop {
            tokio::select! {
                read = running.output.read(&mut piece) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                        // Nobody listening is no error: deltas are volatile.
                        let _ = self.deltas.send(Delta::ToolOutput { call, text });
                        bytes.extend_from_slice(&piece[..count]);
                        // The guest ends a call at its limit; one that does not is not to be trusted with our memory.
                        if bytes.len() as u64 > OUTPUT_LIMIT + SLACK {
                            return Err(broke("the guest sent more output than it may"));
                        }
                    }
                },
                () = self.cancel.cancelled(), if !stopped => {
                    stopped = true;
                    self.workspace.guest.stop(&name, STOP_GRACE).await.map_err(hands_error)?;
                }
            }
        }
        let row = if stopped {
            running.exit().await
        } else {
            tokio::select! {
                row = running.exit() => row,
                () = self.cancel.cancelled() => {
                    self.workspace.guest.stop(&name, STOP_GRACE).await.map_err(hands_error)?;
                    running.exit().await
                }
            }
        }
        .map_err(hands_error)?;
        let Some(exit) = row.exit else { return Err(broke("the guest tells an end that is none")) };
        let (outcome, truncated) = match exit.cause {
            ExitCause::Exited => (ToolOutcome::Done, false),
            ExitCause::Stopped => (ToolOutcome::Stopped, false),
            ExitCause::Timeout => (ToolOutcome::TimedOut, false),
            ExitCause::OutputLimit => (ToolOutcome::OutputLimit, true),
        };
        let wall = Some(Duration::from_micros(exit.wall_us));
        Ok(ToolOutput { outcome, bytes, truncated, exit_status: Some(exit.status), lost: None, wall })
    }
}

impl TurnHands {
    /// What is asked of a service, which may take its time, unless the turn is stopped meanwhile.
    async fn unless_stopped(&self, asked: impl Future<Output = Result<(), ServiceError>>) -> Result<(), HandsError> {
        tokio::select! {
            answer = asked => answer.map_err(service_error),
            () = self.cancel.cancelled() => {
                Err(HandsError::Refused("the turn was stopped; what was asked of the service goes on".into()))
            }
        }
    }
}

#[async_trait]
impl Hands for TurnHands {
    async fn run(&self, command: Command) -> Result<ToolOutput, HandsError> {
        let exec = Exec {
            call: command.call.to_string(),
            argv: command.argv,
            env: environment(&self.author),
            cwd: WORKSPACE.into(),
            timeout_ms: u64::try_from(command.timeout.as_millis()).unwrap_or(u64::MAX),
            output_limit: OUTPUT_LIMIT,
            overflow: Overflow::End,
            stdio: Stdio::Merged,
            label: String::new(),
        };
        let running = self.workspace.guest.exec(exec).await.map_err(hands_error)?;
        self.follow_within(command.call, running, command.timeout).await
    }

    async fn start(&self, name: &str, command: &str) -> Result<bool, HandsError> {
        let begun = self.workspace.start_background(name, command, &self.author).await.map_err(hands_error)?;
        Ok(begun == Begun::Now)
    }

    async fn background(&self) -> Result<Vec<BackgroundView>, HandsError> {
        let services = self.workspace.services().into_iter().map(|service| BackgroundView {
            name: service.name,
            command: service.command,
            exit_status: None,
            service: Some(match service.why {
                Some(why) => format!("{}: {why}", service.state.as_str()),
                None => service.state.as_str().to_owned(),
            }),
        });
        let listed = self.workspace.background().await.map_err(hands_error)?;
        let view = |Background { name, command, row, .. }| BackgroundView {
            name,
            command,
            exit_status: row.exit.map(|exit| exit.status),
            service: None,
        };
        Ok(services.chain(listed.into_iter().map(view)).collect())
    }

    async fn background_output(
        &self,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<BackgroundOutput, HandsError> {
        let piece = self.workspace.background_output(name, offset, max).await.map_err(hands_error)?;
        let (written, exit_status) = (piece.row.output, piece.row.exit.map(|exit| exit.status));
        Ok(BackgroundOutput { offset: piece.offset, bytes: piece.bytes, written, exit_status })
    }

    async fn stop(&self, name: &str) -> Result<Option<i32>, HandsError> {
        if self.workspace.is_service(name) {
            self.unless_stopped(self.workspace.stop_service(name, AGENT)).await?;
            return Ok(None);
        }
        let row = self.workspace.stop_background(name).await.map_err(stop_error)?;
        Ok(row.exit.map(|exit| exit.status))
    }

    async fn restart(&self, name: &str) -> Result<String, HandsError> {
        self.unless_stopped(self.workspace.restart_service(name, AGENT)).await?;
        let found = self.workspace.services().into_iter().find(|service| service.name == name);
        Ok(found.map_or_else(String::new, |service| service.state.as_str().to_owned()))
    }

    async fn read(&self, path: &str, max: u64) -> Result<FileContent, HandsError> {
        let content = self.workspace.guest.read_file(path, max).await.map_err(hands_error)?;
        Ok(FileContent { bytes: content.bytes, size: content.size })
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), HandsError> {
        self.workspace.guest.write_file(path, content, 0o644).await.map_err(hands_error)
    }

    async fn list(&self, path: &str) -> Result<(Vec<String>, bool), HandsError> {
        let listing = self.workspace.guest.list(path, LIST_MAX).await.map_err(hands_error)?;
        Ok((listing.entries.iter().map(name).collect(), listing.truncated))
    }
}

fn name(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Directory => format!("{}/", entry.name),
        EntryKind::Symlink => format!("{}@", entry.name),
        EntryKind::File | EntryKind::Other => entry.name.clone(),
    }
}

pub(super) fn hands_error(error: GuestError) -> HandsError {
    let why = super::chain(&error);
    match &error {
        GuestError::Refused { failure, .. } => HandsError::Refused(failure.to_string()),
        // Only these leave open what the guest did; the others were refused on this side.
        GuestError::Link(_)
        | GuestError::Deadline { .. }
        | GuestError::Replaced { .. }
        | GuestError::Unreadable { .. } => HandsError::Gone(Lost { why, cut_off: super::cut_off(&error) }),
        _ => HandsError::Refused(why),
    }
}

fn silent(why: &str) -> HandsError {
    HandsError::Gone(Lost { why: why.to_owned(), cut_off: Some(CutOff::Silent) })
}

fn broke(why: &str) -> HandsError {
    HandsError::Gone(Lost { why: why.to_owned(), cut_off: Some(CutOff::BrokeProtocol) })
}

/// None of these says anything about the sandbox; what it is about shows at the next use.
fn service_error(error: ServiceError) -> HandsError {
    HandsError::Refused(error.to_string())
}

/// A command that does not end in time says nothing about the sandbox, and a stop can be repeated.
fn stop_error(error: GuestError) -> HandsError {
    match &error {
        GuestError::Deadline { .. } => HandsError::Refused(super::chain(&error)),
        _ => hands_error(error),
    }
}

/// The whole environment of a command. The identity stands here, above every configuration file that the image or the
/// agent may hold.
pub(super) fn environment(author: &Person) -> Vec<(String, String)> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("PAGER", "cat"),
        ("GIT_PAGER", "cat"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", &author.name),
        ("GIT_AUTHOR_EMAIL", &author.email),
        ("GIT_COMMITTER_NAME", &author.name),
        ("GIT_COMMITTER_EMAIL", &author.email),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use ostler_sandbox::client::guest::LinkLost;

    use super::*;

    #[test]
    fn a_guest_that_breaks_the_protocol_is_marked_with_what_it_did() {
        let why = "a flood of messages that nobody waits for";
        let error = hands_error(GuestError::Link(LinkLost::Violation(why)));
        let HandsError::Gone(Lost { why: words, cut_off }) = error else { panic!("{error:?}") };
        assert_eq!(words, format!("the link to the guest is lost: the guest broke the protocol: {why}"));
        assert_eq!(cut_off, Some(CutOff::BrokeProtocol));
    }

    #[test]
    fn a_command_that_does_not_end_in_time_does_not_cost_the_sandbox() {
        let late = || GuestError::Deadline { what: "end a command", after: Duration::from_secs(10) };
        assert!(matches!(stop_error(late()), HandsError::Refused(_)));
        assert!(matches!(hands_error(late()), HandsError::Gone(Lost { cut_off: Some(CutOff::Silent), .. })));
        let ended = stop_error(GuestError::Link(LinkLost::Closed));
        assert!(matches!(ended, HandsError::Gone(Lost { cut_off: None, .. })), "PID 1 may die: {ended:?}");
    }
}
