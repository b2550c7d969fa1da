//! The only file that writes to the terminal: results to standard output, progress to standard error.
//!
//! On a terminal a long step has one line that ticks; elsewhere (a log of the continuous integration) every line
//! stays. No colours: the cursor is moved only to rewrite the ticking line.

use std::error::Error as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Writes a line of the result. A closed standard output is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a line about what is going on.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes an error, its causes and its hint.
pub fn error(error: &Error) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\nhint: {hint}"));
    }
    note(&text);
}

/// Writes a heading before the parts of a longer output.
pub fn heading(text: &str) {
    say(&format!("\n== {text}"));
}

/// What a step found to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was up to date.
    Fresh,
    /// It did what it is for; more about it, may be empty.
    Done(String),
}

/// Runs one step of the set-up: says what it is before and how long it took after.
///
/// # Errors
/// Those of the work.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<(T, Outcome)>) -> Result<T> {
    let begin = Instant::now();
    let (value, outcome) =
        work().inspect_err(|_| note(&format!("xtask: {name}: FAILED after {}", seconds(begin.elapsed()))))?;
    match outcome {
        Outcome::Fresh => note(&format!("xtask: {name}: up to date ({})", seconds(begin.elapsed()))),
        Outcome::Done(detail) if detail.is_empty() => {
            note(&format!("xtask: {name}: done ({})", seconds(begin.elapsed())));
        }
        Outcome::Done(detail) => note(&format!("xtask: {name}: {detail} ({})", seconds(begin.elapsed()))),
    }
    Ok(value)
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    let total = duration.as_secs_f64();
    if total < 10.0 {
        format!("{total:.2} s")
    } else if total < 100.0 {
        format!("{total:.0} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// The ticking line of one long command.
pub struct Ticker {
    what: String,
    begin: Instant,
    terminal: bool,
    last: String,
    reminded: Instant,
}

/// Without a terminal: how often a silent command shows that it lives.
const REMINDER: Duration = Duration::from_secs(30);

impl Ticker {
    /// Begins; `what` is shown with every tick.
    pub fn begin(what: &str) -> Self {
        let now = Instant::now();
        let terminal = io::stderr().is_terminal();
        if !terminal {
            note(&format!("  {what} …"));
        }
        Self { what: what.to_owned(), begin: now, terminal, last: String::new(), reminded: now }
    }

    /// Shows that time passes, with the newest line that the command wrote.
    pub fn tick(&mut self, newest: Option<&str>) {
        if let Some(line) = newest {
            line.clone_into(&mut self.last);
        }
        if self.terminal {
            let mut line = format!("  {} {} {}", self.what, seconds(self.begin.elapsed()), self.last);
            line = line.chars().filter(|c| !c.is_control()).take(100).collect();
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{line}");
        } else if self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            note(&format!("  {}: {} so far; {}", self.what, seconds(self.begin.elapsed()), self.last));
        }
    }

    /// Writes a line that stays: the command entered a new phase.
    pub fn phase(&mut self, line: &str) {
        if self.terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
        note(&format!("  {}: {line}", self.what));
        self.reminded = Instant::now();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_for_people() {
        assert_eq!(seconds(Duration::from_millis(740)), "0.74 s");
        assert_eq!(seconds(Duration::from_millis(46_900)), "47 s");
        assert_eq!(seconds(Duration::from_secs(587)), "9 min 47 s");
    }
}
