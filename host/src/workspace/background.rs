//! Commands that go on in the background of a sandbox, with the last of what they write.
//!
//! The guest keeps the table: commands, their output and their ends outlive this host, and a restarted one asks again.
//! Nobody follows such a command, so nothing holds it up; its output is read in pieces. Names are the host's and unique among
//! the commands that the guest remembers.

use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_sandbox::client::{GuestError, Piece};
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::{Call, Exec, Listed, MAX_LABEL, Overflow, Stdio, WORKSPACE};

use super::Workspace;
use super::hands::environment;

/// What the identifiers of such calls begin with in the guest.
const PREFIX: &str = "bg:";

/// Output that is kept of each.
const TAIL: u64 = 256 * 1024;

/// Time between SIGTERM and SIGKILL, and the longest that the end is waited for.
const STOP_GRACE: Duration = Duration::from_secs(2);
const STOP_TIME: Duration = Duration::from_secs(10);

/// A command in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Background {
    /// Its name.
    pub name: String,
    /// The beginning of its command line.
    pub command: String,
    /// Time since it was started.
    pub age: Duration,
    /// How far it is.
    pub row: Call,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It runs.
    Now,
    /// One of that name is there already, running or ended.
    Before,
}

impl Workspace {
    /// Starts a command in the background, with bash.
    pub async fn start_background(&self, name: &str, command: &str, author: &Person) -> Result<Begun, GuestError> {
        let exec = Exec {
            call: call(name),
            argv: vec!["bash".into(), "-c".into(), command.into()],
            env: environment(author),
            cwd: WORKSPACE.into(),
            timeout_ms: 0,
            output_limit: TAIL,
            overflow: Overflow::DropHead,
            stdio: Stdio::Merged,
            label: label(command),
        };
        match self.guest.exec(exec).await {
            // Nobody follows: the stream is let go at once.
            Ok(_) => Ok(Begun::Now),
            Err(GuestError::Refused { failure, .. }) if failure.kind == FailureKind::Exists => Ok(Begun::Before),
            Err(error) => Err(error),
        }
    }

    /// The commands in the background that the guest remembers, ended ones too, oldest first.
    pub async fn background(&self) -> Result<Vec<Background>, GuestError> {
        let (listed, _) = self.guest.calls(PREFIX).await?;
        Ok(listed.into_iter().filter_map(background).collect())
    }

    /// At most `max` bytes of what a command wrote, from `offset`; the last ones where it is absent.
    pub async fn background_output(&self, name: &str, offset: Option<u64>, max: u32) -> Result<Piece, GuestError> {
        let call = call(name);
        let offset = match offset {
            Some(offset) => offset,
            None => self.guest.status(&call).await?.output.saturating_sub(max.into()),
        };
        self.guest.read_output(&call, offset, max).await
    }

    /// Ends a command with everything that it started, and waits until it has ended. One that has ended is no error.
    pub async fn stop_background(&self, name: &str) -> Result<Call, GuestError> {
        let call = call(name);
        let row = self.guest.status(&call).await?;
        let (_, mut ended) = self.guest.attach(&call, row.output).await?.split();
        self.guest.stop(&call, STOP_GRACE).await?;
        let late = |_| GuestError::Deadline { what: "end a command", after: STOP_TIME };
        tokio::time::timeout(STOP_TIME, ended.exit()).await.map_err(late)?
    }
}

fn call(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn background(listed: Listed) -> Option<Background> {
    let name = listed.row.call.strip_prefix(PREFIX)?.to_owned();
    let age = Duration::from_millis(listed.age_ms);
    Some(Background { name, command: listed.label, age, row: listed.row })
}

/// The beginning of a command line, as much as a label holds.
fn label(command: &str) -> String {
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
    fn a_label_holds_whole_characters() {
        assert_eq!(label("npm start"), "npm start");
        assert_eq!(label(&"é".repeat(300)), "é".repeat(MAX_LABEL / 2));
        assert_eq!(label(&format!("x{}", "é".repeat(300))).len(), MAX_LABEL - 1);
    }
}
