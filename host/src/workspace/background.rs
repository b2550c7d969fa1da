//! Commands that go on in the background of a sandbox, with the last of what they write.
//!
//! The guest keeps the table: commands, their output and their ends outlive this host, and a restarted one asks again.
//! Nobody follows such a command, so nothing holds it up, and any number may ask about its end; its output is read in pieces.
//! Names are the host's and unique among the commands that the guest remembers. One that was stopped makes room for the next
//! of its name. One that ended by itself does not: who starts it again may not know that it did.

use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_sandbox::client::{GuestError, Piece};
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::{Call, Exec, ExitCause, Listed, MAX_LABEL, Overflow, Stdio, WORKSPACE};

use super::Workspace;
use super::hands::environment;

/// What the identifiers of such calls begin with in the guest.
const PREFIX: &str = "bg:";

/// What the identifiers of declared services begin with, so that no name is two things.
const SERVICE_PREFIX: &str = "svc:";

/// Output that is kept of each.
pub(super) const TAIL: u64 = 256 * 1024;

/// Time between SIGTERM and SIGKILL, and the longest that the end is waited for.
const STOP_GRACE: Duration = Duration::from_secs(2);
const STOP_TIME: Duration = Duration::from_secs(10);

/// Pause between two looks at a command that is to end.
const LOOK: Duration = Duration::from_millis(20);

/// What the name of a run begins with in a label, and how many characters follow.
const RUN_MARK: char = '#';
const RUN_LENGTH: usize = 8;

/// A command in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Background {
    /// Its name.
    pub name: String,
    /// Which start of that name it is; empty where an older host started it.
    pub run: String,
    /// The beginning of its command line.
    pub command: String,
    /// Time since it was started.
    pub age: Duration,
    /// How far it is.
    pub row: Call,
}

impl Background {
    /// Whether another may be started with its name: it was stopped.
    #[must_use]
    pub fn makes_room(&self) -> bool {
        makes_room(&self.row)
    }
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It runs.
    Now,
    /// One of that name is there already: it runs, or has ended by itself.
    Before,
}

impl Workspace {
    /// Starts a command in the background, with bash, in the place of one of its name that was stopped.
    pub async fn start_background(&self, name: &str, command: &str, author: &Person) -> Result<Begun, GuestError> {
        if self.services.is_service(name) {
            return Ok(Begun::Before);
        }
        let exec = Exec {
            call: call(name),
            argv: vec!["bash".into(), "-c".into(), command.into()],
            env: environment(author),
            cwd: WORKSPACE.into(),
            timeout_ms: 0,
            output_limit: TAIL,
            overflow: Overflow::DropHead,
            stdio: Stdio::Merged,
            label: label(&format!("{RUN_MARK}{} {command}", new_run())),
        };
        let mut begun = self.guest.start(exec.clone()).await;
        if exists(&begun) && makes_room(&self.guest.status(&exec.call).await?) {
            // Refused where somebody else was faster, who has the name then.
            let _ = self.guest.forget(&exec.call).await;
            begun = self.guest.start(exec).await;
        }
        match begun {
            _ if exists(&begun) => Ok(Begun::Before),
            Ok(()) => Ok(Begun::Now),
            Err(error) => Err(error),
        }
    }

    /// The commands in the background that the guest remembers, ended ones too, oldest first.
    pub async fn background(&self) -> Result<Vec<Background>, GuestError> {
        let (listed, _) = self.guest.calls(PREFIX).await?;
        Ok(listed.into_iter().filter_map(|listed| background(PREFIX, listed)).collect())
    }

    /// The identifier of what has a name: the service, where one is declared.
    fn call(&self, name: &str) -> String {
        if self.services.is_service(name) { service_call(name) } else { call(name) }
    }

    /// The declared services as far as the guest remembers a start, with how far the last one is.
    pub async fn service_starts(&self) -> Result<Vec<Background>, GuestError> {
        let (listed, _) = self.guest.calls(SERVICE_PREFIX).await?;
        Ok(listed.into_iter().filter_map(|listed| background(SERVICE_PREFIX, listed)).collect())
    }

    /// At most `max` bytes of what a command or service wrote, from `offset`; the last ones where it is absent, none where it is after
    /// the end.
    pub async fn background_output(&self, name: &str, offset: Option<u64>, max: u32) -> Result<Piece, GuestError> {
        let call = self.call(name);
        let written = self.guest.status(&call).await?.output;
        let offset = offset.unwrap_or(written.saturating_sub(max.into())).min(written);
        self.guest.read_output(&call, offset, max).await
    }

    /// Ends a command with everything that it started, and waits until it has ended. One that has ended is no error.
    pub async fn stop_background(&self, name: &str) -> Result<Call, GuestError> {
        let call = call(name);
        self.guest.stop(&call, STOP_GRACE).await?;
        // Asked for rather than followed: only one can follow a command, and several may end it at a time.
        let ended = async {
            loop {
                let row = self.guest.status(&call).await?;
                if row.exit.is_some() {
                    return Ok(row);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = GuestError::Deadline { what: "end a command", after: STOP_TIME };
        tokio::time::timeout(STOP_TIME, ended).await.unwrap_or(Err(late))
    }
}

/// The identifier of a declared service's last start.
pub(super) fn service_call(name: &str) -> String {
    format!("{SERVICE_PREFIX}{name}")
}

fn call(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn exists<T>(begun: &Result<T, GuestError>) -> bool {
    matches!(begun, Err(GuestError::Refused { failure, .. }) if failure.kind == FailureKind::Exists)
}

fn makes_room(row: &Call) -> bool {
    row.exit.is_some_and(|exit| exit.cause == ExitCause::Stopped)
}

fn background(prefix: &str, listed: Listed) -> Option<Background> {
    let name = listed.row.call.strip_prefix(prefix)?.to_owned();
    let age = Duration::from_millis(listed.age_ms);
    let (run, command) = parts(&listed.label);
    Some(Background { name, run: run.to_owned(), command: command.to_owned(), age, row: listed.row })
}

/// The run and the command line that a label holds.
fn parts(label: &str) -> (&str, &str) {
    let marked = label.strip_prefix(RUN_MARK).and_then(|rest| rest.split_once(' '));
    let is_run = |run: &str| run.len() == RUN_LENGTH && run.bytes().all(|byte| byte.is_ascii_alphanumeric());
    marked.filter(|(run, _)| is_run(run)).unwrap_or(("", label))
}

fn new_run() -> String {
    let random = ulid::Ulid::generate().to_string().to_ascii_lowercase();
    random[random.len().saturating_sub(RUN_LENGTH)..].to_owned()
}

/// The beginning of a text, as much as a label holds.
pub(super) fn label(command: &str) -> String {
    let mut end = command.len().min(MAX_LABEL);
    while !command.is_char_boundary(end) {
        end -= 1;
    }
    command[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_the_run_from_the_command() {
        let run = new_run();
        assert_eq!(parts(&format!("#{run} npm start")), (run.as_str(), "npm start"));
        assert_ne!(run, new_run());
        for older in ["npm start", "#comment and more", "#12345678", "#1234567! x"] {
            assert_eq!(parts(older), ("", older));
        }
    }

    #[test]
    fn a_label_holds_whole_characters() {
        assert_eq!(label("npm start"), "npm start");
        assert_eq!(label(&"é".repeat(300)), "é".repeat(MAX_LABEL / 2));
        assert_eq!(label(&format!("x{}", "é".repeat(300))).len(), MAX_LABEL - 1);
    }
}
