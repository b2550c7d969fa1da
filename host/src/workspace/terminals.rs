//! Terminals of a sandbox, each shared by everybody who looks at it.
//!
//! ```text
//! guest ══ one stream ══► reader ─► scrollback ─► broadcast ─► viewers
//!       ◄═══════════════ writer ◄─ bounded queue ◄─────────────┘
//! ```
//!
//! A shell belongs to the sandbox: it outlives its viewers and this host. The guest keeps the last of what was shown and gives
//! it to a host that comes back; this host keeps as much for further viewers. A viewer that is too slow loses its view, not
//! the others theirs. Once nobody looks, the stream is let go at the next output.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ostler_protocol::event::Person;
use ostler_sandbox::client::{Guest, GuestError};
use ostler_sandbox::wire::guest::{Exec, Listed, Overflow, Stdio, WORKSPACE, Window};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, broadcast, mpsc};

use super::Workspace;
use super::hands::environment;

/// What the identifiers of such calls begin with in the guest.
const PREFIX: &str = "tty:";

/// What was shown last, kept by the guest and by this host.
const SCROLLBACK: usize = 256 * 1024;

/// Pieces that a viewer may be behind, and pieces of input that may wait.
const BEHIND: usize = 256;
const TYPED: usize = 64;

/// Time between asking a shell to end and killing it, and the longest that the end is waited for.
const STOP_GRACE: Duration = Duration::from_secs(1);
const STOP_TIME: Duration = Duration::from_secs(10);

/// The terminals that somebody looks at, by name.
#[derive(Default)]
pub(super) struct Terminals {
    shared: Arc<Mutex<HashMap<String, Shared>>>,
}

/// What the viewers of one terminal share.
#[derive(Clone)]
struct Shared {
    scrollback: Arc<std::sync::Mutex<VecDeque<u8>>>,
    output: broadcast::Sender<Bytes>,
    typed: mpsc::Sender<Bytes>,
}

/// One look at a terminal.
pub struct TerminalView {
    /// What was shown before.
    pub scrollback: Bytes,
    /// What is shown from now on; closed when the shell has ended, lagging where the viewer was too slow.
    pub output: broadcast::Receiver<Bytes>,
    /// What is typed. Full where the program does not read.
    pub typed: mpsc::Sender<Bytes>,
}

/// A terminal in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its name.
    pub name: String,
    /// Time since it was opened.
    pub age: Duration,
    /// Exit status of its shell; `None` while it runs.
    pub exit_status: Option<i32>,
}

impl Workspace {
    /// Opens a terminal with a login shell.
    ///
    /// # Errors
    /// [`GuestError::Refused`] with [`ostler_sandbox::wire::FailureKind::Exists`] where one of that name is there.
    pub async fn open_terminal(&self, name: &str, window: Window, author: &Person) -> Result<(), GuestError> {
        let exec = Exec {
            call: call(name),
            argv: vec!["bash".into(), "-l".into()],
            env: interactive(author),
            cwd: WORKSPACE.into(),
            timeout_ms: 0,
            output_limit: SCROLLBACK as u64,
            overflow: Overflow::DropHead,
            stdio: Stdio::Terminal(window),
            label: "bash".into(),
        };
        // The stream is let go until somebody looks.
        self.guest.exec(exec).await.map(drop)
    }

    /// The terminals that the guest remembers, ended ones too, oldest first.
    pub async fn terminals(&self) -> Result<Vec<Terminal>, GuestError> {
        let (listed, _) = self.guest.calls(PREFIX).await?;
        Ok(listed.into_iter().filter_map(terminal).collect())
    }

    /// Looks at a terminal.
    pub async fn view_terminal(&self, name: &str) -> Result<TerminalView, GuestError> {
        self.terminals.view(&self.guest, name).await
    }

    /// Sets the size of a terminal.
    pub async fn resize_terminal(&self, name: &str, window: Window) -> Result<(), GuestError> {
        self.guest.resize(&call(name), window).await
    }

    /// Ends a terminal with everything in it, waits for its end and forgets it.
    pub async fn close_terminal(&self, name: &str) -> Result<Terminal, GuestError> {
        let call = call(name);
        let row = self.guest.status(&call).await?;
        if row.exit.is_none() {
            let ended = async {
                let mut look = self.terminals.view(&self.guest, name).await?;
                self.guest.stop(&call, STOP_GRACE).await?;
                // What it still says is of no interest, only that it ends.
                while !matches!(look.output.recv().await, Err(broadcast::error::RecvError::Closed)) {}
                Ok(())
            };
            let late = GuestError::Deadline { what: "end a terminal", after: STOP_TIME };
            tokio::time::timeout(STOP_TIME, ended).await.unwrap_or(Err(late))?;
        }
        let (listed, _) = self.guest.calls(&call).await?;
        let found = listed.into_iter().filter(|listed| listed.row.call == call).find_map(terminal);
        self.guest.forget(&call).await?;
        Ok(found.unwrap_or(Terminal { name: name.to_owned(), age: Duration::ZERO, exit_status: None }))
    }
}

fn call(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn terminal(listed: Listed) -> Option<Terminal> {
    let name = listed.row.call.strip_prefix(PREFIX)?.to_owned();
    let age = Duration::from_millis(listed.age_ms);
    Some(Terminal { name, age, exit_status: listed.row.exit.map(|exit| exit.status) })
}

/// The environment of a person at a terminal: as for commands, but programs may use the terminal.
fn interactive(author: &Person) -> Vec<(String, String)> {
    let mut variables = environment(author);
    variables.retain(|(name, _)| !matches!(name.as_str(), "TERM" | "PAGER" | "GIT_PAGER" | "GIT_TERMINAL_PROMPT"));
    variables.push(("TERM".into(), "xterm-256color".into()));
    variables
}

impl Terminals {
    async fn view(&self, guest: &Guest, name: &str) -> Result<TerminalView, GuestError> {
        let mut open = self.shared.lock().await;
        if let Some(shared) = open.get(name) {
            return Ok(shared.view());
        }
        let (stream, _) = guest.attach(&call(name), 0).await?.split();
        let (output, _) = broadcast::channel(BEHIND);
        let (typed, input) = mpsc::channel(TYPED);
        let shared = Shared { scrollback: Arc::default(), output, typed };
        let view = shared.view();
        open.insert(name.to_owned(), shared.clone());
        drop(open);
        let (reading, writing) = UnixStream::into_split(stream);
        tokio::spawn(write(writing, input));
        tokio::spawn(read(reading, name.to_owned(), shared, Arc::clone(&self.shared)));
        Ok(view)
    }
}

impl Shared {
    /// What is kept and what comes next, without a gap between them: both change under the lock of the scrollback.
    fn view(&self) -> TerminalView {
        let kept = self.scrollback.lock().unwrap_or_else(PoisonError::into_inner);
        let output = self.output.subscribe();
        let (front, back) = kept.as_slices();
        TerminalView { scrollback: Bytes::from([front, back].concat()), output, typed: self.typed.clone() }
    }

    fn show(&self, bytes: &[u8]) {
        let mut kept = self.scrollback.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(SCROLLBACK);
        kept.drain(..excess);
        // Nobody looking is no error.
        let _ = self.output.send(Bytes::copy_from_slice(bytes));
    }
}

/// Passes on what is shown, until the terminal ends or nobody looks any more.
async fn read(mut from: OwnedReadHalf, name: String, to: Shared, open: Arc<Mutex<HashMap<String, Shared>>>) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut piece).await.unwrap_or(0);
        if count > 0 {
            to.show(&piece[..count]);
            if to.output.receiver_count() > 0 {
                continue;
            }
        }
        // Under the lock, so that nobody begins to look just now.
        let mut open = open.lock().await;
        if count == 0 || to.output.receiver_count() == 0 {
            open.remove(&name);
            return;
        }
    }
}

/// Hands on what is typed. A program that does not read holds up only this.
async fn write(mut to: OwnedWriteHalf, mut typed: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typed.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
