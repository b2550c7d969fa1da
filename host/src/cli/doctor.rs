//! `ostler doctor`: shows what was found, for people in as many columns as there are, for programs as JSON.

use std::time::Duration;

use super::CliError;
use super::args::Doctor;
use super::output::Printer;
use super::terminal::{Paint, clean};
use crate::doctor::{Check, Group, Inputs, Network, Report, State};

/// Width where there is no terminal, and the least and most that lines are made for.
const WIDTH: usize = 80;
const NARROW: usize = 40;
const WIDE: usize = 120;

/// Where the text of a check begins: after two spaces, the longest state and a space.
const INDENT: usize = 10;

pub(super) fn execute(doctor: Doctor, printer: &mut Printer) -> Result<(), CliError> {
    let configuration = match doctor.file.load(doctor.settings.given()) {
        Ok(loaded) => Ok(loaded),
        Err(CliError::Config(error)) => Err(error),
        Err(error) => return Err(error),
    };
    let program = std::env::current_exe().map_err(|source| CliError::File {
        operation: "find",
        path: "the program itself".into(),
        source,
    })?;
    let network = if doctor.offline { Network::Offline } else { Network::Asked };
    let report = examine(Inputs { configuration, program, network })?;
    if doctor.json {
        printer.json(&report)?;
    } else {
        let columns =
            terminal_size::terminal_size_of(std::io::stdout()).map_or(WIDTH, |(columns, _)| usize::from(columns.0));
        printer.data(&render(&report, columns, printer.paint))?;
    }
    match report.summary.failed {
        0 => Ok(()),
        failed => Err(CliError::Unwell { failed }),
    }
}

fn examine(inputs: Inputs) -> Result<Report, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Runtime { source })?;
    let report = runtime.block_on(crate::doctor::examine(inputs));
    // A disk that hangs must not hold up the end.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(report)
}

/// The report for people.
pub(super) fn render(report: &Report, columns: usize, paint: Paint) -> String {
    let columns = columns.clamp(NARROW, WIDE);
    let mut text = String::new();
    for group in Group::ALL {
        let checks: Vec<&Check> = report.checks.iter().filter(|check| check.group == group.name()).collect();
        if checks.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&paint.strong(group.title()));
        text.push('\n');
        checks.iter().for_each(|check| text.push_str(&lines(check, columns, paint)));
    }
    text.push_str(&format!("\n{}\n", summary(report)));
    text
}

fn lines(check: &Check, columns: usize, paint: Paint) -> String {
    let word = check.state.word();
    let gap = " ".repeat(INDENT - 2 - word.len());
    let word = match check.state {
        State::Ok => paint.good(word),
        State::Warning => paint.caution(word),
        State::Failed => paint.bad(word),
        State::Skipped => paint.faint(word),
    };
    let name = check.name().replace('_', " ");
    let subject = check.subject.as_ref().map_or_else(String::new, |subject| format!(" {subject}"));
    let found = wrap(&clean(&format!("{name}{subject}: {}", check.found)), columns - INDENT);
    let fix = check.fix.as_ref().map(|fix| wrap(&clean(&format!("fix: {fix}")), columns - INDENT));
    let mut text = String::new();
    for (number, line) in found.into_iter().chain(fix.into_iter().flatten()).enumerate() {
        match number {
            0 => text.push_str(&format!("  {word}{gap}{line}\n")),
            _ => text.push_str(&format!("{}{line}\n", " ".repeat(INDENT))),
        }
    }
    text
}

/// The text in lines of at most `width` characters. A word that is longer, such as a path, has a line of its own, whole,
/// so that it can be copied.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let needed = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if needed <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn summary(report: &Report) -> String {
    let summary = report.summary;
    let warnings = if summary.warnings == 1 { "warning" } else { "warnings" };
    format!(
        "{} OK, {} {warnings}, {} failed, {} skipped",
        summary.ok, summary.warnings, summary.failed, summary.skipped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_stays_whole_and_short_ones_fill_the_lines() {
        assert_eq!(wrap("a bb /a/very/long/path c", 6), ["a bb", "/a/very/long/path", "c"]);
        assert_eq!(wrap("", 6), [""]);
    }
}
