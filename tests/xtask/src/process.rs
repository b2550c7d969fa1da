//! Runs other programs: with their output on the terminal, captured, or behind a ticking line.
//!
//! Every run has a deadline, after which the program is killed. Its standard input is empty unless the caller set it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::output::Ticker;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How many lines of a failed program's output are shown.
const TAIL_LINES: usize = 30;

/// What a program that ended said.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, lossily decoded.
    pub stdout: String,
    /// What it wrote to standard error, lossily decoded.
    pub stderr: String,
}

/// The command line as a person would type it.
pub fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+%@".contains(c);
        text.push(' ');
        if !argument.is_empty() && argument.chars().all(plain) {
            text.push_str(&argument);
        } else {
            text.push_str(&format!("'{}'", argument.replace('\'', r"'\''")));
        }
    }
    text
}

/// Starts a program.
///
/// # Errors
/// [`Error::Start`].
pub fn start(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|source| Error::Start { command: describe(command), source })
}

/// Waits for a program; after `limit` it is killed.
///
/// # Errors
/// [`Error::Command`] when it had to be killed.
pub fn wait(child: &mut Child, limit: Duration, command: &str) -> Result<ExitStatus> {
    let begin = Instant::now();
    let failed = |ending: String| Error::Command { command: command.to_owned(), ending, tail: String::new() };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begin.elapsed() < limit => thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("killed after {} s", limit.as_secs())));
            }
            Err(source) => return Err(failed(format!("cannot be waited for: {source}"))),
        }
    }
}

/// Runs a program whose output goes to the terminal as it comes.
///
/// # Errors
/// [`Error::Start`]; [`Error::Command`] unless it succeeds in time.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let text = describe(command);
    let mut child = start(command)?;
    let status = wait(&mut child, limit, &text)?;
    succeeded(&text, status, "")
}

/// Runs a program and keeps what it says, whatever its exit status.
///
/// # Errors
/// [`Error::Start`]; [`Error::Command`] when it runs out of time.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Captured> {
    let text = describe(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(command)?;
    // Both pipes are emptied while it runs, so that it never waits for a full one.
    let stdout = child.stdout.take().map(|pipe| thread::spawn(move || read_lossy(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read_lossy(pipe)));
    let status = wait(&mut child, limit, &text)?;
    let join = |reader: Option<thread::JoinHandle<String>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    Ok(Captured { status, stdout: join(stdout), stderr: join(stderr) })
}

/// Runs a program and returns its standard output.
///
/// # Errors
/// [`Error::Start`]; [`Error::Command`] with what it wrote to standard error unless it succeeds in time.
pub fn read(command: &mut Command, limit: Duration) -> Result<String> {
    let captured = capture(command, limit)?;
    succeeded(&describe(command), captured.status, &last_lines(&captured.stderr))?;
    Ok(captured.stdout)
}

/// Runs a program behind a ticking line. All of its output goes to `log`; a line for which `is_phase` says so stays
/// on the terminal.
///
/// # Errors
/// [`Error::Start`]; [`Error::File`] about the log; [`Error::Command`] with the log's tail unless it succeeds in time.
pub fn run_ticking(
    command: &mut Command,
    what: &str,
    log: &Path,
    limit: Duration,
    is_phase: impl Fn(&str) -> bool,
) -> Result<()> {
    let text = describe(command);
    let mut file = File::create(log).map_err(Error::file("create", log))?;
    let pipe = || Error::file("make a pipe for", log);
    let (reader, writer) = std::io::pipe().map_err(pipe())?;
    command.stdout(writer.try_clone().map_err(pipe())?).stderr(writer);
    let mut child = start(command)?;
    // The command holds this end too: it is closed, so that the reader sees the end when the child ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::sync_channel::<String>(64);
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(std::result::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });

    let begin = Instant::now();
    let mut ticker = Ticker::begin(what);
    let mut kept = Vec::new();
    while begin.elapsed() < limit {
        match lines.recv_timeout(Duration::from_millis(250)) {
            Ok(line) => {
                writeln!(file, "{line}").map_err(Error::file("write", log))?;
                if is_phase(&line) {
                    ticker.phase(&line);
                }
                ticker.tick(Some(&line));
                kept.push(line);
            }
            Err(RecvTimeoutError::Timeout) => ticker.tick(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    drop(ticker);
    let status = wait(&mut child, limit.saturating_sub(begin.elapsed()), &text)?;
    succeeded(&text, status, &last_lines(&kept.join("\n")))
}

fn succeeded(command: &str, status: ExitStatus, tail: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: command.to_owned(), ending: status.to_string(), tail: tail.to_owned() })
}

/// The last lines of a longer text.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_lossy(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before a failure is still worth showing; the exit status tells about the rest.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_failing_command_fails_the_step_and_shows_what_it_said() {
        let error = read(&mut shell("echo broken >&2; exit 3"), LONG).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(error.to_string().contains("broken"), "{error}");
    }

    #[test]
    fn a_command_over_its_time_is_killed() {
        let error = run(&mut shell("exec sleep 1000"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("killed after"), "{error}");
    }

    #[test]
    fn a_ticking_command_leaves_its_output_in_the_log() {
        let log = std::env::temp_dir().join(format!("xtask-process-test-{}", std::process::id()));
        let result = run_ticking(&mut shell("echo one; echo two >&2; exit 1"), "test", &log, LONG, |_| false);
        let logged = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(logged, "one\ntwo\n");
        assert!(result.unwrap_err().to_string().contains("one\ntwo"));
    }

    #[test]
    fn a_described_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("git");
        command.args(["commit", "-m", "it's done", ""]);
        assert_eq!(describe(&command), r"git commit -m 'it'\''s done' ''");
    }
}
