//! A session as a person reads it: events and deltas in, lines of text out. Pure.
//!
//! Owns what was shown of a step or a call while it arrived, so that the event that follows shows only the rest.
//! The words are those of [`super::words`]; everything foreign passes [`super::terminal::clean`].

use std::collections::HashMap;

use ostler_protocol::event::{Person, Reason, ToolCall, ToolOutcome, Verdict};
use ostler_protocol::{CallId, Delta, Event, EventBody, TurnId};
use serde_json::Value;

use super::terminal::{Paint, clean, cut};
use super::words::{self, LINE, Line};

/// Lines of a tool's output that are shown from its beginning and from its end.
const HEAD: usize = 8;
const TAIL: usize = 4;

/// The reader's state.
pub struct Transcript {
    paint: Paint,
    live: bool,
    author: Option<Person>,
    calls: HashMap<CallId, Call>,
    /// The call whose header was printed last.
    shown: Option<CallId>,
    /// Text of the model that was shown while it arrived.
    streamed: Option<(TurnId, u32, String)>,
    /// Whether the last line has no end yet.
    open_line: bool,
}

/// A tool call under way.
#[derive(Default)]
struct Call {
    tool: String,
    asked: Option<Value>,
    /// Whole lines of its output that were shown while they arrived.
    live_lines: usize,
    /// The line that is not whole yet.
    partial: String,
}

impl Transcript {
    /// An empty transcript. With `live`, text is shown while it arrives.
    pub fn new(paint: Paint, live: bool) -> Self {
        Self { paint, live, author: None, calls: HashMap::new(), shown: None, streamed: None, open_line: false }
    }

    /// What to print for an event; empty for those that say nothing to a person.
    pub fn event(&mut self, event: &Event) -> String {
        let text = self.body(&event.body);
        if text.is_empty() || !self.open_line {
            return text;
        }
        self.open_line = false;
        format!("\n{text}")
    }

    /// What to print for a delta.
    pub fn delta(&mut self, delta: &Delta) -> String {
        if !self.live {
            return String::new();
        }
        match delta {
            Delta::ModelText { turn, step, text } => self.model_delta(*turn, *step, text),
            Delta::ToolOutput { call, text } => self.tool_delta(*call, text),
        }
    }

    /// What to print at the end.
    pub fn close(&mut self) -> String {
        if std::mem::take(&mut self.open_line) { "\n".to_owned() } else { String::new() }
    }

    fn body(&mut self, body: &EventBody) -> String {
        match body {
            EventBody::ModelResponded { turn, step, text, calls, stop, .. } => {
                let said = self.responded(*turn, *step, text, calls);
                let stopped: Vec<_> = words::stop(*stop).into_iter().collect();
                said + &self.paint.lines(&stopped)
            }
            EventBody::Decided { hook, call, verdict, reasons, .. } => self.decided(hook, *call, *verdict, reasons),
            EventBody::ToolStarted { call, tool, arguments, .. } => self.started(*call, tool, arguments),
            EventBody::ToolFinished { call, outcome, output, blob, exit_status, took_ms } => {
                let mut result = words::result(*outcome, *exit_status, *took_ms);
                result.extend(blob.as_ref().map(words::whole_output));
                self.finished(*call, *outcome, output, &result)
            }
            body => {
                let lines = words::event(body, self.author.as_ref());
                if let EventBody::SessionCreated { author, .. } = body {
                    self.author = Some(author.clone());
                }
                self.paint.lines(&lines)
            }
        }
    }

    fn model_delta(&mut self, turn: TurnId, step: u32, text: &str) -> String {
        let current = matches!(&self.streamed, Some((t, s, _)) if (*t, *s) == (turn, step));
        let mut printed = String::new();
        if !current {
            printed.push_str(&self.close());
            self.streamed = Some((turn, step, String::new()));
        }
        if let Some((_, _, streamed)) = &mut self.streamed {
            streamed.push_str(text);
        }
        let text = clean(text);
        printed.push_str(&text);
        if !text.is_empty() {
            self.open_line = !text.ends_with('\n');
        }
        printed
    }

    fn responded(&mut self, turn: TurnId, step: u32, text: &str, calls: &[ToolCall]) -> String {
        for call in calls {
            let known = Call { tool: call.tool.clone(), asked: Some(call.arguments.clone()), ..Call::default() };
            self.calls.insert(call.call, known);
        }
        let streamed = self.streamed.take_if(|(t, s, _)| (*t, *s) == (turn, step));
        if text.trim().is_empty() {
            return String::new();
        }
        match streamed.as_ref().and_then(|(_, _, streamed)| text.strip_prefix(streamed.as_str())) {
            // What was shown is its beginning: go on in the same line.
            Some(rest) => {
                self.open_line = false;
                let end = if rest.is_empty() && text.ends_with('\n') { "\n" } else { "\n\n" };
                format!("{}{end}", clean(rest.trim_end()))
            }
            // Pieces were lost: all of it, once more.
            None => format!("{}\n\n", clean(text.trim_end())),
        }
    }

    fn decided(&mut self, hook: &str, call: Option<CallId>, verdict: Verdict, reasons: &[Reason]) -> String {
        let Some(line) = words::decision(verdict, reasons) else { return String::new() };
        let line = self.paint.lines(&[line]);
        match call {
            Some(call) => format!("{}  {line}", self.header(call, None)),
            None => format!("{}: {line}", clean(hook)),
        }
    }

    fn started(&mut self, call: CallId, tool: &str, arguments: &Value) -> String {
        let asked = self.calls.get(&call).and_then(|call| call.asked.clone());
        let header = self.header(call, Some((tool, arguments)));
        match asked.filter(|asked| asked != arguments) {
            Some(asked) => {
                let lines = words::rewritten(tool, &asked, arguments);
                lines.into_iter().fold(header, |text, line| format!("{text}    {}", self.paint.lines(&[line])))
            }
            None => header,
        }
    }

    /// The line that says which call this is, unless it was the last one printed.
    fn header(&mut self, call: CallId, started: Option<(&str, &Value)>) -> String {
        if self.shown == Some(call) {
            return String::new();
        }
        self.shown = Some(call);
        let known = self.calls.get(&call);
        let asked = known.and_then(|call| call.asked.as_ref());
        let tool = started.map(|(tool, _)| tool).or(known.map(|call| call.tool.as_str())).unwrap_or("tool");
        let arguments = asked.or(started.map(|(_, arguments)| arguments)).unwrap_or(&Value::Null);
        let line = format!("{} {}", self.paint.strong(&clean(tool)), words::target(tool, arguments));
        format!("● {}\n", line.trim_end())
    }

    fn tool_delta(&mut self, call: CallId, text: &str) -> String {
        let mut printed = self.close();
        printed.push_str(&self.header(call, None));
        let state = self.calls.entry(call).or_default();
        let mut pieces = text.split('\n');
        state.partial.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let line = std::mem::replace(&mut state.partial, piece.to_owned());
            if state.live_lines < HEAD {
                printed.push_str(&output_line(self.paint, &line));
            }
            state.live_lines += 1;
        }
        // A line without end must not grow without end.
        if state.partial.len() > 4 * LINE {
            state.partial.truncate(state.partial.floor_char_boundary(4 * LINE));
        }
        printed
    }

    fn finished(&mut self, call: CallId, outcome: ToolOutcome, output: &str, result: &Line) -> String {
        let header = self.header(call, None);
        let state = self.calls.remove(&call).unwrap_or_default();
        let mut text = header;
        // The reason was printed with the decision.
        if outcome != ToolOutcome::Denied {
            let lines: Vec<&str> = output.trim_end().lines().collect();
            text.push_str(&shortened(self.paint, &lines, state.live_lines.min(HEAD)));
        }
        text.push_str(&format!("  {}\n", self.paint.lines(std::slice::from_ref(result))));
        self.shown = None;
        text
    }
}

/// Head and tail of an output, without the `skip` lines that were shown before.
fn shortened(paint: Paint, lines: &[&str], skip: usize) -> String {
    let skip = skip.min(lines.len());
    let (head, tail) = if lines.len() <= HEAD + TAIL + 1 {
        (&lines[skip..], &lines[lines.len()..])
    } else {
        (&lines[skip..HEAD.max(skip)], &lines[lines.len() - TAIL..])
    };
    let missing = lines.len() - skip - head.len() - tail.len();
    let mut text: String = head.iter().map(|line| output_line(paint, line)).collect();
    if missing > 0 {
        text.push_str(&format!("    {}\n", paint.faint(&format!("… {missing} more lines …"))));
    }
    text.extend(tail.iter().map(|line| output_line(paint, line)));
    text
}

fn output_line(paint: Paint, line: &str) -> String {
    let line = cut(&clean(line), LINE);
    if line.trim().is_empty() { "\n".to_owned() } else { format!("    {}\n", paint.faint(&line)) }
}
