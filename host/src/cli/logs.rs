//! `ostler logs`: the log of the host from the files in its data folder, whether or not the host runs.
//!
//! Owns how a line reads and which lines are wanted. Reads files of JSON lines and follows them over their rotation.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::CliError;
use super::args::{Level, Logs};
use super::output::Printer;
use super::terminal::{Paint, clean};
use crate::config::Flag;
use crate::telemetry::{FILES, log_file};

/// Pause between two looks at a file that is followed.
const LOOK: Duration = Duration::from_millis(200);

/// Fields that stand elsewhere in a line for people.
const KNOWN: [&str; 6] = ["timestamp", "level", "target", "message", "spans", "span"];

pub(super) fn execute(logs: Logs, printer: &mut Printer) -> Result<(), CliError> {
    let flags = logs.data.clone().map(|value| Flag { key: "host.data", value });
    let folder = logs.file.clone().load(flags.into_iter().collect())?.data()?.join("log");
    let wanted = Wanted { session: logs.session.as_deref(), request: logs.request.as_deref(), level: logs.level };
    let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    let mut keep = |line: String| {
        if wanted.admits(&line) {
            tail.push_back(line);
            if logs.lines.is_some_and(|lines| tail.len() > lines) {
                tail.pop_front();
            }
        }
    };
    for number in (1..FILES).rev() {
        if let Some(mut file) = open(&log_file(&folder, number))? {
            read(&mut file, &mut keep).map_err(|source| failed(&log_file(&folder, number), source))?;
        }
    }
    let path = log_file(&folder, 0);
    let mut current = open(&path)?;
    match &mut current {
        Some(file) => read(file, &mut keep).map_err(|source| failed(&path, source))?,
        None if !logs.follow => return Err(CliError::NoLog { folder }),
        None => {}
    }
    for line in tail {
        show(&line, logs.json, printer)?;
    }
    if logs.follow { follow(&path, current, &wanted, logs.json, printer) } else { Ok(()) }
}

/// A file while it is read.
struct Reading {
    lines: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
}

fn open(path: &Path) -> Result<Option<Reading>, CliError> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata().map_err(|source| failed(path, source))?.ino();
            Ok(Some(Reading { lines: BufReader::new(file), inode, partial: Vec::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path, source)),
    }
}

fn failed(path: &Path, source: io::Error) -> CliError {
    CliError::File { operation: "read", path: path.to_owned(), source }
}

/// Reads every whole line that is there.
fn read(file: &mut Reading, take: &mut impl FnMut(String)) -> io::Result<()> {
    loop {
        if file.lines.read_until(b'\n', &mut file.partial)? == 0 {
            return Ok(());
        }
        if file.partial.ends_with(b"\n") {
            take(String::from_utf8_lossy(&std::mem::take(&mut file.partial)).trim_end().to_owned());
        }
    }
}

fn follow(
    path: &Path,
    mut current: Option<Reading>,
    wanted: &Wanted<'_>,
    json: bool,
    printer: &mut Printer,
) -> Result<(), CliError> {
    loop {
        std::thread::sleep(LOOK);
        let mut lines = Vec::new();
        // Asked before the file is read: where another one has taken the name by now, this one is whole.
        let named = std::fs::metadata(path).ok().map(|metadata| metadata.ino());
        if let Some(file) = &mut current {
            // A file that was cut is read from its beginning again.
            let position = file.lines.stream_position().map_err(|source| failed(path, source))?;
            let length = file.lines.get_ref().metadata().map_err(|source| failed(path, source))?.len();
            if length < position {
                file.lines.rewind().map_err(|source| failed(path, source))?;
                file.partial.clear();
            }
            read(file, &mut |line| lines.push(line)).map_err(|source| failed(path, source))?;
        }
        if named.is_some() && named != current.as_ref().map(|file| file.inode) {
            current = open(path)?;
        }
        for line in lines.iter().filter(|line| wanted.admits(line)) {
            show(line, json, printer)?;
        }
    }
}

/// Which lines are wanted.
struct Wanted<'a> {
    session: Option<&'a str>,
    request: Option<&'a str>,
    level: Option<Level>,
}

impl Wanted<'_> {
    fn admits(&self, line: &str) -> bool {
        // Ids are long and random: where one stands in a line the line is about it.
        let about = |id: Option<&str>| id.is_none_or(|id| line.contains(id));
        if !(about(self.session) && about(self.request)) {
            return false;
        }
        self.level.is_none_or(|level| {
            let line: Value = serde_json::from_str(line).unwrap_or(Value::Null);
            line["level"].as_str().and_then(Level::of).is_none_or(|found| found >= level)
        })
    }
}

fn show(line: &str, json: bool, printer: &mut Printer) -> Result<(), CliError> {
    if json {
        // Another program reads it: what is no JSON is not for it.
        return if serde_json::from_str::<Value>(line).is_ok() { printer.line(line) } else { Ok(()) };
    }
    let text = match serde_json::from_str::<Value>(line) {
        Ok(value @ Value::Object(_)) => readable(&value, printer.paint),
        // Not one of ours; it is shown as it is.
        _ => clean(line),
    };
    printer.line(&text)
}

/// A line for people: time, level, where, what, and everything else as `name=value`.
fn readable(line: &Value, paint: Paint) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or("");
    // `2026-01-01T12:00:00.123456Z`: to the millisecond is enough.
    let time = text("timestamp").get(..23).unwrap_or(text("timestamp"));
    let level = format!("{:<5}", clean(text("level")));
    let level = match level.trim_end() {
        "ERROR" => paint.bad(&level),
        "WARN" => paint.caution(&level),
        _ => level,
    };
    let target = text("target");
    let target = target.strip_prefix("ostler::").unwrap_or(target);
    let mut parts = vec![paint.faint(&clean(time)), level, paint.faint(&clean(target)), clean(text("message"))];
    let fields = line.as_object().into_iter().flatten().filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    parts.extend(fields.map(|(name, value)| field(name, value)));
    for span in line["spans"].as_array().into_iter().flatten() {
        let name = span["name"].as_str().unwrap_or("");
        let within = span.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
        let within: Vec<String> = within.map(|(name, value)| field(name, value)).collect();
        parts.push(paint.faint(&format!("({} {})", clean(name), within.join(" "))));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn field(name: &str, value: &Value) -> String {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let value = clean(&value);
    let quoted = if value.contains(' ') { format!("{value:?}") } else { value };
    format!("{}={quoted}", clean(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"WARN","message":"slow","target":"ostler::api::edge","took_ms":7,"why":"a \u001b[31mdisk","spans":[{"name":"request","id":"req_1","path":"/v1"}]}"#;

    #[test]
    fn a_line_is_readable_and_cannot_steer_the_terminal() {
        let line: Value = serde_json::from_str(LINE).unwrap();
        let expected =
            "2026-01-02T03:04:05.678 WARN  api::edge slow took_ms=7 why=\"a ^[[31mdisk\" (request id=req_1 path=/v1)";
        assert_eq!(readable(&line, Paint { enabled: false }), expected);
    }

    #[test]
    fn lines_are_wanted_by_id_and_level() {
        let wanted = |session, request, level| Wanted { session, request, level }.admits(LINE);
        assert!(wanted(None, None, None));
        assert!(wanted(None, Some("req_1"), Some(Level::Warn)));
        assert!(!wanted(None, None, Some(Level::Error)));
        assert!(!wanted(Some("ses_x"), None, None));
    }
}
