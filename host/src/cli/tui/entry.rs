//! One thing in the transcript on the screen, and its rows. Pure.
//!
//! Owns what the screen adds to the words: a call is one row until it is opened. Does not know where on the screen it is.

use ostler_protocol::{CallId, TurnId};
use serde_json::Value;

use super::wrap::{fit, width, wrap};
use crate::cli::terminal::{clean, cut};
use crate::cli::words::{self, Line, Tone, piece};

/// Lines of an open call's output that are shown from its beginning and from its end.
const HEAD: usize = 300;
const TAIL: usize = 100;
/// Longest line of an open call's output, in characters.
const LONGEST: usize = 2_000;
/// What a tool wrote so far and is kept of it, in bytes.
const LIVE: usize = 16 * 1024;
/// Columns before a call, for its marks.
const GUTTER: usize = 3;

/// One thing in the transcript.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An event that stands for itself.
    Words(Vec<Line>),
    /// What the model said, whole or so far.
    Said {
        /// In which turn.
        turn: TurnId,
        /// To which request.
        step: u32,
        /// The text as it came.
        text: String,
    },
    /// A tool call.
    Call(Box<Call>),
}

/// A tool call, from the asking to the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// Which; none only for one that was never filled in.
    pub id: Option<CallId>,
    /// The tool.
    pub tool: String,
    /// What the model asked for.
    pub asked: Option<Value>,
    /// What it runs with, once it runs.
    pub runs: Option<Value>,
    /// What the hooks said, where they said something.
    pub decisions: Vec<Line>,
    /// What it wrote so far.
    live: String,
    /// How it ended, and what it wrote.
    end: Option<(Line, String)>,
    /// Whether all of it is shown.
    pub open: bool,
}

impl Entry {
    /// Its rows on a screen of `columns`.
    pub fn rows(&self, columns: usize, selected: bool) -> Vec<Line> {
        match self {
            Self::Words(lines) => lines.iter().flat_map(|line| wrap(line, columns, 2)).collect(),
            Self::Said { text, .. } => said(text, columns),
            Self::Call(call) => call.rows(columns, selected),
        }
    }

    /// What it takes in memory, roughly, in bytes.
    pub fn bytes(&self) -> usize {
        let lines = |lines: &[Line]| lines.iter().flatten().map(|piece| piece.text.len() + 32).sum::<usize>();
        let own = match self {
            Self::Words(words) => lines(words),
            Self::Said { text, .. } => text.len(),
            Self::Call(call) => {
                let arguments = [&call.asked, &call.runs].into_iter().flatten().map(|value| value.to_string().len());
                let output = call.end.as_ref().map_or(call.live.len(), |(_, output)| output.len());
                lines(&call.decisions) + output + arguments.sum::<usize>()
            }
        };
        own + 128
    }
}

fn said(text: &str, columns: usize) -> Vec<Line> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let cleaned = clean(text.trim_end());
    let lines = cleaned.split('\n').map(|line| vec![piece(Tone::Plain, line)]);
    lines.flat_map(|line| wrap(&line, columns, 0)).chain([Line::new()]).collect()
}

impl Call {
    /// A call that was asked for.
    pub fn asked(id: CallId, tool: &str, arguments: Option<Value>) -> Self {
        Self { id: Some(id), tool: tool.to_owned(), asked: arguments, ..Self::default() }
    }

    /// Takes in what the tool wrote.
    pub fn wrote(&mut self, text: &str) {
        self.live.push_str(text);
        if self.live.len() > LIVE {
            let start = self.live.ceil_char_boundary(self.live.len() - LIVE / 2);
            self.live.drain(..start);
        }
    }

    /// Takes in how it ended.
    pub fn ended(&mut self, result: Line, output: &str) {
        self.live = String::new();
        self.end = Some((result, output.to_owned()));
    }

    fn rows(&self, columns: usize, selected: bool) -> Vec<Line> {
        let mut rows = vec![self.head(columns, selected)];
        if self.open {
            let indent = if columns < 60 { 2 } else { 4 };
            for mut line in self.body() {
                line.insert(0, piece(Tone::Plain, " ".repeat(indent)));
                rows.extend(wrap(&line, columns, indent));
            }
        }
        rows
    }

    /// The row that says which call this is and how it went. The target gives way to the result.
    fn head(&self, columns: usize, selected: bool) -> Line {
        let marks = format!("{}{} ", if selected { ">" } else { " " }, if self.open { "▾" } else { "▸" });
        let tool = clean(&self.tool);
        let state = self.state();
        let taken = GUTTER + width(&tool) + state.iter().map(|piece| width(&piece.text)).sum::<usize>() + 2;
        let target = self.target();
        let room = columns.saturating_sub(taken + 1);
        let mut line = vec![piece(Tone::Plain, marks), piece(Tone::Strong, tool)];
        if room >= 4 && !target.is_empty() {
            line.push(piece(Tone::Plain, format!(" {}", fit(&target, room))));
        }
        line.push(piece(Tone::Plain, "  "));
        line.extend(state);
        clip(line, columns)
    }

    fn target(&self) -> String {
        words::target(&self.tool, self.asked.as_ref().or(self.runs.as_ref()).unwrap_or(&Value::Null))
    }

    fn rewritten(&self) -> Option<Vec<Line>> {
        let (asked, runs) = (self.asked.as_ref()?, self.runs.as_ref()?);
        (asked != runs).then(|| words::rewritten(&self.tool, asked, runs))
    }

    fn state(&self) -> Line {
        let mut state = match &self.end {
            Some((result, _)) => result.clone(),
            None if self.runs.is_none() => vec![piece(Tone::Faint, "… waiting")],
            None => match self.live.trim_end().lines().next_back() {
                Some(line) => vec![piece(Tone::Faint, format!("… {}", cut(clean(line).trim(), 30)))],
                None => vec![piece(Tone::Faint, "… running")],
            },
        };
        if self.rewritten().is_some() {
            state.push(piece(Tone::Caution, ", rewritten"));
        }
        state
    }

    fn body(&self) -> Vec<Line> {
        let mut lines = self.decisions.clone();
        match self.rewritten() {
            Some(both) => lines.extend(both),
            None => lines.push(vec![piece(Tone::Plain, self.target())]),
        }
        let output = self.end.as_ref().map_or(&self.live, |(_, output)| output);
        let output: Vec<&str> = output.trim_end().lines().collect();
        let line = |line: &&str| vec![piece(Tone::Faint, cut(&clean(line), LONGEST))];
        if output.len() <= HEAD + TAIL {
            lines.extend(output.iter().map(line));
        } else {
            lines.extend(output[..HEAD].iter().map(line));
            let missing = output.len() - HEAD - TAIL;
            lines.push(vec![piece(Tone::Caution, format!("… {missing} more lines …"))]);
            lines.extend(output[output.len() - TAIL..].iter().map(line));
        }
        lines
    }
}

/// The line cut to a row.
fn clip(line: Line, columns: usize) -> Line {
    let mut left = columns;
    let mut row = Line::new();
    for part in line {
        let text = fit(&part.text, left);
        left -= width(&text).min(left);
        row.push(piece(part.tone, text));
    }
    row
}
