//! A session as a person reads it: events and deltas in, lines of text out. Pure.
//!
//! Owns what was shown of a step or a call while it arrived, so that the event that follows shows only the rest.
//! Everything foreign passes [`terminal::clean`].

use std::collections::HashMap;

use ostler_protocol::event::{
    Blob, ModelStop, Person, Reason, Summarizer, ToolCall, ToolOutcome, TurnOutcome, Verdict,
};
use ostler_protocol::{CallId, Delta, Event, EventBody, TurnId};
use serde_json::Value;

use super::terminal::{Paint, clean, cut, duration, one_line};

/// Longest line of a tool's output or arguments, in characters.
const LINE: usize = 160;
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
                let mut printed = self.responded(*turn, *step, text, calls);
                if *stop == ModelStop::OutputLimit {
                    printed.push_str(&(self.paint.caution("the answer reached the limit on its length") + "\n"));
                }
                printed
            }
            EventBody::Decided { hook, call, verdict, reasons, .. } => self.decided(hook, *call, *verdict, reasons),
            EventBody::ToolStarted { call, tool, arguments, .. } => self.started(*call, tool, arguments),
            EventBody::ToolFinished { call, outcome, output, blob, exit_status, took_ms } => {
                let result = self.result(*outcome, *exit_status, *took_ms);
                self.finished(*call, *outcome, output, blob.as_ref(), &result)
            }
            EventBody::TurnStarted { .. } | EventBody::ModelRequested { .. } | EventBody::Unknown => String::new(),
            EventBody::PromptSubmitted { text, author, .. } => self.prompt(text, author),
            EventBody::TurnFinished { outcome, .. } => self.turn_finished(outcome),
            body => self.milestone(body),
        }
    }

    /// Events that are one line.
    fn milestone(&mut self, body: &EventBody) -> String {
        let paint = self.paint;
        match body {
            EventBody::SessionCreated { session, repository, base_branch, base_commit, branch, author, .. } => {
                self.author = Some(author.clone());
                let (repository, branch) = (clean(repository), clean(branch));
                let from = format!("{} at {}", clean(base_branch), short(base_commit));
                let title = paint.strong(&format!("session {session}"));
                format!("{title} on {repository}\n  from {from} to {branch}, for {}\n", person(author))
            }
            EventBody::WorkspaceRequested => paint.faint("workspace: making it") + "\n",
            EventBody::WorkspaceReady { took_ms, restored } => {
                let files = if *restored { ", with the files of before" } else { "" };
                paint.faint(&format!("workspace: ready in {}{files}", duration(*took_ms))) + "\n"
            }
            EventBody::WorkspaceLost { reason } => format!("{} {}\n", paint.caution("workspace lost:"), clean(reason)),
            EventBody::ContextAdded { source, text } => {
                let lines = text.lines().count();
                paint.faint(&format!("context: {} ({lines} lines)", one_line(source, LINE))) + "\n"
            }
            EventBody::ModelRetried { attempt, of, reason, after_ms, .. } => {
                let (next, pause) = (attempt + 1, duration(*after_ms));
                let word = paint.caution("the model did not answer:");
                format!("{word} {}; asking again in {pause} (attempt {next} of {of})\n", clean(reason))
            }
            EventBody::ContextCompacted { replaced, reason, by, tokens_before, tokens_after, .. } => {
                let who = if *by == Summarizer::Host { ", listed by the host" } else { "" };
                let word = paint.caution("context compacted:");
                let what = format!(
                    "{replaced} messages became a summary{who} (about {tokens_before} → {tokens_after} tokens)"
                );
                format!("{word} {what}; {}\n", clean(reason))
            }
            EventBody::StopRequested => paint.caution("stop was asked for") + "\n",
            EventBody::BranchPushed { branch, commit } => {
                paint.faint(&format!("pushed {} at {}", clean(branch), short(commit))) + "\n"
            }
            EventBody::PullRequestOpened { number, title, url, .. } => {
                let line = paint.strong(&format!("pull request #{number} is open: {}", one_line(title, LINE)));
                format!("{line}\n  {}\n", clean(url))
            }
            EventBody::PullRequestUpdated { number, commit, url, .. } => {
                let line = paint.strong(&format!("pull request #{number} is now at {}", short(commit)));
                format!("{line}\n  {}\n", clean(url))
            }
            EventBody::PublishSkipped { reason, failure: None } => format!("nothing to publish: {}\n", clean(reason)),
            EventBody::PublishSkipped { reason, failure: Some(_) } => {
                format!("{} {}\n", paint.bad("✗ not published:"), clean(reason))
            }
            EventBody::Notice { text } => format!("{} {}\n", paint.caution("note:"), clean(text)),
            _ => String::new(),
        }
    }

    fn prompt(&self, text: &str, author: &Person) -> String {
        let by = match &self.author {
            Some(known) if known == author => String::new(),
            _ => format!("  ({})", person(author)),
        };
        let lines: Vec<String> =
            clean(text.trim_end()).lines().map(|line| self.paint.strong(&format!("> {line}"))).collect();
        format!("\n{}{by}\n\n", lines.join("\n"))
    }

    fn turn_finished(&self, outcome: &TurnOutcome) -> String {
        match outcome {
            TurnOutcome::Done => self.paint.good("✓ turn done") + "\n",
            TurnOutcome::Stopped => self.paint.caution("✗ turn stopped") + "\n",
            TurnOutcome::Interrupted => self.paint.bad("✗ turn interrupted: the host went away") + "\n",
            TurnOutcome::Halted { reason } => format!("{} {}\n", self.paint.bad("✗ turn halted:"), clean(reason)),
            TurnOutcome::Failed { message, .. } => format!("{} {}\n", self.paint.bad("✗ turn failed:"), clean(message)),
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
        let word = match verdict {
            Verdict::Pass => return String::new(),
            Verdict::Rewrite => self.paint.caution("rewritten"),
            Verdict::Ask => self.paint.caution("needs a person"),
            Verdict::Defer => self.paint.caution("deferred"),
            Verdict::Deny => self.paint.bad("✗ denied"),
            Verdict::Halt => self.paint.bad("✗ halted"),
        };
        let why = if reasons.is_empty() { String::new() } else { format!(" {}", because(reasons)) };
        match call {
            Some(call) => {
                let header = self.header(call, None);
                format!("{header}  {word}{why}\n")
            }
            None => format!("{}: {word}{why}\n", clean(hook)),
        }
    }

    fn started(&mut self, call: CallId, tool: &str, arguments: &Value) -> String {
        let asked = self.calls.get(&call).and_then(|call| call.asked.clone());
        let rewritten = asked.as_ref().is_some_and(|asked| asked != arguments);
        let header = self.header(call, Some((tool, arguments)));
        if !rewritten {
            return header;
        }
        let asked = asked.unwrap_or_default();
        let asked = one_line(&summary(tool, &asked), LINE);
        let run = one_line(&summary(tool, arguments), LINE);
        format!("{header}    asked {asked}\n    runs  {run}\n")
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
        let line = format!("{} {}", self.paint.strong(&clean(tool)), one_line(&summary(tool, arguments), LINE));
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

    fn result(&self, outcome: ToolOutcome, exit_status: Option<i32>, took_ms: u64) -> String {
        let (good, word) = match (outcome, exit_status) {
            (ToolOutcome::Done, None | Some(0)) => (true, "✓ done".to_owned()),
            (ToolOutcome::Done, Some(status)) => (false, format!("✗ exit {status}")),
            (ToolOutcome::Failed, _) => (false, "✗ failed".to_owned()),
            (ToolOutcome::Denied, _) => (false, "✗ never ran".to_owned()),
            (ToolOutcome::Stopped, _) => (false, "✗ stopped".to_owned()),
            (ToolOutcome::TimedOut, _) => (false, "✗ ran out of time".to_owned()),
            (ToolOutcome::OutputLimit, _) => (false, "✗ wrote too much".to_owned()),
            (ToolOutcome::Unknown, _) => (false, "✗ outcome unknown: the host or the sandbox went away".to_owned()),
        };
        let word = if good { self.paint.good(&word) } else { self.paint.bad(&word) };
        if outcome == ToolOutcome::Denied {
            return word;
        }
        format!("{word} {}", self.paint.faint(&format!("in {}", duration(took_ms))))
    }

    fn finished(
        &mut self,
        call: CallId,
        outcome: ToolOutcome,
        output: &str,
        blob: Option<&Blob>,
        result: &str,
    ) -> String {
        let header = self.header(call, None);
        let state = self.calls.remove(&call).unwrap_or_default();
        let mut text = header;
        // The reason was printed with the decision.
        if outcome != ToolOutcome::Denied {
            let lines: Vec<&str> = output.trim_end().lines().collect();
            text.push_str(&shortened(self.paint, &lines, state.live_lines.min(HEAD)));
        }
        let whole = blob.map(|blob| self.paint.faint(&format!(", {} bytes of output in all", blob.bytes)));
        text.push_str(&format!("  {result}{}\n\n", whole.unwrap_or_default()));
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

/// What a call is about, in one text: the command, the file, or all of it.
fn summary(tool: &str, arguments: &Value) -> String {
    let field = |name: &str| arguments.get(name).and_then(Value::as_str);
    let known = match tool {
        "shell" => field("command").map(str::to_owned),
        "search" => field("pattern").map(|pattern| match field("path") {
            Some(path) => format!("{pattern} in {path}"),
            None => pattern.to_owned(),
        }),
        _ => field("path").map(str::to_owned),
    };
    match (known, arguments) {
        (Some(known), _) => known,
        (None, Value::Null) => String::new(),
        (None, arguments) => arguments.to_string(),
    }
}

fn because(reasons: &[Reason]) -> String {
    let one = |reason: &Reason| format!("by {}: {}", clean(&reason.plugin), one_line(&reason.text, LINE));
    reasons.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn person(person: &Person) -> String {
    clean(&format!("{} <{}>", person.name, person.email))
}

fn short(commit: &str) -> String {
    clean(commit).chars().take(12).collect()
}
