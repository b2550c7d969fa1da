//! The guard: a process that keeps the demo's host and cleans up after it, whatever happens to the demo.
//!
//! ```text
//! demo ──stdin (held open)──► guard ──child──► ostler up
//!   │                           │
//!   └ ends, is interrupted      └ end of stdin: stop the host, see that nothing of it is left,
//!     or is killed                remove the directory
//! ```
//!
//! It is this same program in a process group of its own, so that an interrupt at the terminal ends the demo and not
//! the guard. It needs no signal handler: the end of its standard input is all that it waits for, and the kernel
//! closes that however the demo ends. The host's command line comes over standard input: words that each end with a
//! NUL, and a line feed after the last one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::leftovers::{self, Leftover};
use crate::arguments::{GuardOptions, KEEP};
use crate::error::{Error, Result};
use crate::output;
use crate::process;

/// Longest time for a host to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Longest time for what the host started to go away after it.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Begins the guard's line when the host ended on its own.
const ENDED: &str = "xtask-guard: the host ended: ";

// The demo's side.

/// A running guard, seen from the demo.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Guard {
    /// Starts a guard for `directory`, which does not have to exist yet. The host's standard error goes to `log`.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn begin(directory: &Path, log: &Path, keep: bool) -> Result<Self> {
        // Not the path of this program: a build may replace it while it runs.
        let mut command = Command::new("/proc/self/exe");
        command.arg("guard").arg(directory).arg(log).arg(if keep { KEEP } else { "remove" });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = process::start(&mut command)?;
        let (sender, lines) = mpsc::sync_channel(256);
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                    // When nobody reads any more the lines are dropped; the pipe must never fill up.
                    let _ = sender.try_send(line);
                }
            });
        }
        Ok(Self { input: child.stdin.take(), child, lines })
    }

    /// Has the guard start the host and waits for its first line with an address.
    ///
    /// # Errors
    /// [`Error::Command`] when the host ends or says no address within `limit`.
    pub fn start_host(&mut self, words: &[OsString], limit: Duration) -> Result<String> {
        let mut message = Vec::new();
        for word in words {
            message.extend_from_slice(word.as_bytes());
            message.push(0);
        }
        message.push(b'\n');
        let failed = |ending: String| Error::Command { command: "ostler up".to_owned(), ending, tail: String::new() };
        let input = self.input.as_mut().ok_or_else(|| failed("the guard has no input".to_owned()))?;
        input.write_all(&message).and_then(|()| input.flush()).map_err(Error::file("write to", "the guard"))?;
        let begin = Instant::now();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                Ok(line) => match (line.strip_prefix(ENDED), line.find("http://")) {
                    (Some(ending), _) => return Err(failed(ending.to_owned())),
                    (None, Some(start)) => {
                        let address = line[start..].split_whitespace().next().unwrap_or_default();
                        return Ok(address.trim_end_matches(['.', ',', ')']).to_owned());
                    }
                    (None, None) => {}
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(failed(format!("said no address within {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(failed("the guard ended".to_owned())),
            }
        }
    }

    /// Tells the guard to clean up and waits for it.
    ///
    /// # Errors
    /// [`Error::Command`] when something was left or the host had to be killed; the guard has said what.
    pub fn end(mut self) -> Result<()> {
        self.input = None;
        let what = "cleaning up after the demo";
        let status = process::wait(&mut self.child, STOP_LIMIT + SETTLE_LIMIT * 3, what)?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Command { command: what.to_owned(), ending: status.to_string(), tail: String::new() })
    }
}

// The guard's side.

/// Runs the guard until its standard input ends, then cleans up.
///
/// # Errors
/// [`Error::Start`] when the host cannot be started; [`Error::File`] when the directory cannot be removed.
pub fn run(options: &GuardOptions) -> Result<ExitCode> {
    let before = leftovers::control_groups();
    let commands = commands_from_input();
    let mut host: Option<Child> = None;
    let mut failure = None;
    loop {
        match commands.recv_timeout(Duration::from_millis(50)) {
            Ok(words) => match start_host(&words, &options.log) {
                Ok(child) => host = Some(child),
                Err(error) => {
                    output::say(&format!("{ENDED}{error}"));
                    failure = Some(error);
                }
            },
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = host.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                    output::say(&format!("{ENDED}{status}"));
                    host = None;
                }
            }
        }
    }
    let mut clean = true;
    if let Some(child) = host {
        clean &= stop(child);
    }
    let left = settle(|| leftovers::find(&options.directory, &before));
    for Leftover { what, process } in &left {
        output::note(&format!("xtask-guard: left behind: {what}"));
        if let Some(number) = process {
            signal("KILL", *number);
        }
    }
    if !options.keep {
        remove(&options.directory)?;
    }
    failure.map_or(Ok(if clean && left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }), Err)
}

/// Reads command lines until the input ends; the channel closes with it.
fn commands_from_input() -> Receiver<Vec<OsString>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let words = line.split(|byte| *byte == 0).filter(|word| *word != b"\n");
            if sender.send(words.map(|word| OsString::from_vec(word.to_vec())).collect()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

fn start_host(words: &[OsString], log: &Path) -> Result<Child> {
    let (program, arguments) = words.split_first().map_or((OsStr::new(""), words), |(p, rest)| (p.as_os_str(), rest));
    let log = fs::File::create(log).map_err(Error::file("create", log))?;
    process::start(Command::new(program).args(arguments).stdin(Stdio::null()).stderr(log))
}

/// Stops the host in order; whether that worked.
fn stop(mut host: Child) -> bool {
    // The number belongs to our own child, which was not waited for: it cannot be another process's.
    signal("TERM", host.id());
    match process::wait(&mut host, STOP_LIMIT, "ostler up") {
        Ok(status) => {
            let orderly = status.success();
            if !orderly {
                output::note(&format!("xtask-guard: the host ended with {status}"));
            }
            orderly
        }
        Err(error) => {
            output::error(&error);
            false
        }
    }
}

/// Sends a signal. The shell does it: the standard library cannot, and this crate has no dependencies.
fn signal(name: &str, process: u32) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill \"-$1\" \"$2\"", "sh", name]).arg(process.to_string());
    if let Err(error) = process::read(&mut kill, Duration::from_secs(5)) {
        output::error(&error);
    }
}

/// Looks until nothing is left or the time is over.
fn settle(look: impl Fn() -> Vec<Leftover>) -> Vec<Leftover> {
    let begin = Instant::now();
    loop {
        let left = look();
        if left.is_empty() || begin.elapsed() > SETTLE_LIMIT {
            return left;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Removes the directory; something that is just ending may still write into it for a moment.
fn remove(directory: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if begin.elapsed() < SETTLE_LIMIT => thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(Error::file("remove", directory)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_never_was_counts_as_removed() {
        remove(Path::new("/nonexistent/of-the-demo")).unwrap();
    }
}
