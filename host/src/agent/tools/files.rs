//! Tools that read and write files of the workspace.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::{Hands, ToolError, ToolOutput, arguments};

/// Most bytes of a file that a tool reads.
const MAX_READ: u64 = 8 * 1024 * 1024;

/// Lines of a file where the model names no limit.
const LINES: usize = 2000;

/// Characters of a line before it is cut.
const LINE_LENGTH: usize = 2000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    path: String,
    offset: Option<usize>,
    limit: Option<usize>,
}

pub(super) async fn read_file(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let Read { path, offset, limit } = arguments(value)?;
    let text = read_text(hands, &path).await?;
    let first = offset.unwrap_or(1).max(1);
    let limit = limit.unwrap_or(LINES).max(1);
    let total = text.lines().count();
    if first > total.max(1) {
        return Err(ToolError::Arguments(format!("`offset` is {first}, but {path} has {total} lines")));
    }
    let mut shown = String::new();
    for (line, number) in text.lines().skip(first - 1).take(limit).zip(first..) {
        let cut: String = line.chars().take(LINE_LENGTH).collect();
        let mark = if cut.len() < line.len() { "…" } else { "" };
        let _ = writeln!(shown, "{number:>6}\t{cut}{mark}");
    }
    let last = (first - 1).saturating_add(limit).min(total);
    if last < total {
        let _ = writeln!(shown, "(lines {first} to {last} of {total}; read on with offset {})", last + 1);
    }
    if total == 0 {
        shown = format!("({path} is empty)");
    }
    Ok(ToolOutput::done(shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteFile {
    path: String,
    content: String,
}

pub(super) async fn write_file(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let WriteFile { path, content } = arguments(value)?;
    hands.write(&path, content.as_bytes()).await?;
    Ok(ToolOutput::done(format!("wrote {} bytes to {path}", content.len())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    path: String,
    old: String,
    new: String,
}

pub(super) async fn edit_file(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let Edit { path, old, new } = arguments(value)?;
    if old.is_empty() {
        return Err(ToolError::Arguments("`old` is empty; use write_file for a new file".into()));
    }
    if old == new {
        return Err(ToolError::Arguments("`old` and `new` are the same".into()));
    }
    let text = read_text(hands, &path).await?;
    match text.matches(&old).count() {
        1 => {}
        0 => return Err(ToolError::Impossible(format!("`old` does not occur in {path}; read the file again"))),
        count => {
            let why = format!("`old` occurs {count} times in {path}; give more lines around it to make it unique");
            return Err(ToolError::Impossible(why));
        }
    }
    let line = text.split(&old).next().map_or(1, |before| before.matches('\n').count() + 1);
    hands.write(&path, text.replacen(&old, &new, 1).as_bytes()).await?;
    Ok(ToolOutput::done(format!("edited {path} at line {line}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    path: Option<String>,
}

pub(super) async fn list_files(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let List { path } = arguments(value)?;
    let (names, more) = hands.list(path.as_deref().unwrap_or_default()).await?;
    if names.is_empty() {
        return Ok(ToolOutput::done("(empty)"));
    }
    let mut text = names.join("\n");
    if more {
        text.push_str("\n(there are more)");
    }
    Ok(ToolOutput::done(text))
}

async fn read_text(hands: &dyn Hands, path: &str) -> Result<String, ToolError> {
    let content = hands.read(path, MAX_READ).await?;
    if content.size > MAX_READ {
        let why = format!("{path} has {} bytes, more than {MAX_READ}; use shell to read a part of it", content.size);
        return Err(ToolError::Impossible(why));
    }
    String::from_utf8(content.bytes)
        .map_err(|_| ToolError::Impossible(format!("{path} is not text (no UTF-8); use shell to look at it")))
}
