//! The one place that prints: data to stdout, everything else to stderr.
//!
//! Owns both streams, and what they can show. Does not know what it prints.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

use super::CliError;
use super::args::ColorChoice;
use super::terminal::{Paint, clean};
use crate::config::{ConfigError, env};

/// Both streams of the process, or of a test.
pub struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Colours of stdout.
    pub paint: Paint,
    /// Colours of stderr.
    pub err_paint: Paint,
    /// Whether a person watches stdout: then text is shown while it arrives.
    pub live: bool,
    /// Whether a person can be asked.
    pub interactive: bool,
    /// Whether the terminal can be a screen, drawn on as a whole.
    pub screen: bool,
}

impl Printer {
    /// The streams of the process.
    pub fn of_process(choice: ColorChoice) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let live = out.is_terminal();
        Self {
            paint: Paint { enabled: coloured(choice, live) },
            err_paint: Paint { enabled: coloured(choice, err.is_terminal()) },
            live,
            interactive: io::stdin().is_terminal() && err.is_terminal(),
            screen: live && io::stdin().is_terminal() && capable(),
            out: Box::new(out),
            err: Box::new(err),
        }
    }

    /// Streams of a test, without colour and without a person.
    #[cfg(test)]
    pub fn of_test(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let paint = Paint { enabled: false };
        Self { out, err, paint, err_paint: paint, live: false, interactive: false, screen: false }
    }

    /// Prints data as it is and shows it at once.
    pub fn data(&mut self, text: &str) -> Result<(), CliError> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Output(error),
        })
    }

    /// Prints what a terminal shows, as it is: for a shell, whose programs drive the person's terminal as over ssh.
    pub fn shown(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CliError::Output)
    }

    /// Prints one line of data.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.data(&format!("{text}\n"))
    }

    /// Prints text that somebody else wrote: as it is into a file or pipe, cleaned on a terminal.
    pub fn foreign(&mut self, text: &str) -> Result<(), CliError> {
        if self.live { self.data(&clean(text)) } else { self.data(text) }
    }

    /// Prints a value as JSON in one line.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))?;
        self.line(&escaped(&text))
    }

    /// Says something beside the data.
    pub fn note(&mut self, text: &str) {
        self.say(&clean(text));
    }

    /// Warns.
    pub fn warning(&mut self, text: &str) {
        let line = format!("{} {}", self.err_paint.caution("warning:"), clean(text));
        self.say(&line);
    }

    /// Tells an error with its causes, and what to do about it.
    pub fn error(&mut self, error: &CliError) {
        // The reader has gone; there is nobody to tell.
        if matches!(error, CliError::OutputClosed) {
            return;
        }
        if let CliError::Config(ConfigError::Wrong(problems)) = error {
            for problem in problems {
                self.failure("error:", &problem.to_string(), problem.hint.as_deref());
            }
            return;
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let word = if matches!(error, CliError::Detached { .. }) { "" } else { "error:" };
        self.failure(word, &text, error.hint().as_deref());
    }

    fn failure(&mut self, word: &str, text: &str, hint: Option<&str>) {
        let word = if word.is_empty() { String::new() } else { format!("{} ", self.err_paint.bad(word)) };
        self.say(&format!("{word}{}", clean(text)));
        if let Some(hint) = hint {
            let line = format!("{} {}", self.err_paint.strong("hint:"), clean(hint));
            self.say(&line);
        }
    }

    /// Asks the person at the terminal for one line; `None` where there is no one or nothing was said.
    pub fn ask(&mut self, question: &str) -> Option<String> {
        if !self.interactive {
            return None;
        }
        // A question that cannot be shown is not asked.
        write!(self.err, "{} ", clean(question)).and_then(|()| self.err.flush()).ok()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        let answer = answer.trim();
        (!answer.is_empty()).then(|| answer.to_owned())
    }

    fn say(&mut self, line: &str) {
        // Where stderr is closed there is no one to tell, and no reason to fail.
        let _ = writeln!(self.err, "{line}").and_then(|()| self.err.flush());
    }
}

/// JSON without what a terminal obeys: beyond what JSON escapes there are DEL and the controls of the second half, such as the
/// one-byte beginning of an escape sequence. They can stand within texts only, where their escapes mean the same.
fn escaped(json: &str) -> Cow<'_, str> {
    if !json.contains(char::is_control) {
        return Cow::Borrowed(json);
    }
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escape).collect::<String>().into()
}

fn coloured(choice: ColorChoice, terminal: bool) -> bool {
    let uncoloured = std::env::var_os(env::NO_COLOR).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => terminal && !uncoloured && capable(),
    }
}

/// Whether the terminal understands more than lines of text.
fn capable() -> bool {
    std::env::var_os(env::TERM).is_none_or(|name| name != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_steers_a_terminal_and_means_the_same() {
        let text = "\u{9b}31m \u{85} \u{7f} \u{1b}[0m ü 🙂";
        let json = escaped(&serde_json::to_string(text).unwrap()).into_owned();
        assert_eq!(json, r#""\u009b31m \u0085 \u007f \u001b[0m ü 🙂""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
