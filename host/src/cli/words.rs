//! The words for what happens in a session, each piece with its tone. Pure.
//!
//! Owns how events read, in every view of a session: [`super::transcript`] prints these lines, [`super::tui`] puts them
//! on a screen. Everything foreign passes [`terminal::clean`](super::terminal::clean) here. Does not know colours or
//! where a line ends on a screen.

use ostler_protocol::EventBody;
use ostler_protocol::event::{
    Blob, EgressVerdict, ModelStop, Person, Reason, Summarizer, ToolOutcome, TurnOutcome, Verdict,
};
use ostler_protocol::processes::ServiceState;
use serde_json::Value;

use super::terminal::{clean, duration, one_line};

/// Longest line of a tool's output or arguments, in characters.
pub const LINE: usize = 160;

/// What a piece of text is to the reader. It is never the only sign of anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// The matter itself.
    #[default]
    Plain,
    /// Something important.
    Strong,
    /// Something beside the matter.
    Faint,
    /// Something that went well.
    Good,
    /// Something that went wrong.
    Bad,
    /// Something to look at.
    Caution,
}

/// Text of one tone, without line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How it is meant.
    pub tone: Tone,
    /// What it says.
    pub text: String,
}

/// A line; as long as it needs to be.
pub type Line = Vec<Piece>;

/// A piece of a line.
pub fn piece(tone: Tone, text: impl Into<String>) -> Piece {
    Piece { tone, text: text.into() }
}

/// What to say beside an answer that did not come to its own end.
pub fn stop(stop: ModelStop) -> Option<Line> {
    match stop {
        ModelStop::Finished => None,
        ModelStop::OutputLimit => Some(vec![piece(Tone::Caution, "the answer reached the limit on its length")]),
    }
}

/// The lines of an event that stands for itself; empty for those that say nothing to a person, and for what the model
/// and tools do. `author` is the person that the session was made for.
pub fn event(body: &EventBody, author: Option<&Person>) -> Vec<Line> {
    match body {
        EventBody::PromptSubmitted { text, author: by, .. } => prompt(text, by, author),
        EventBody::TurnFinished { outcome, .. } => vec![turn_finished(outcome)],
        body => milestone(body),
    }
    .into_iter()
    .flat_map(split)
    .collect()
}

fn milestone(body: &EventBody) -> Vec<Line> {
    let faint = |text: String| vec![vec![piece(Tone::Faint, text)]];
    let with = |tone: Tone, word: &str, text: &str| vec![vec![piece(tone, word), plain(format!(" {}", clean(text)))]];
    let address =
        |title: String, url: &str| vec![vec![piece(Tone::Strong, title)], vec![plain(format!("  {}", clean(url)))]];
    match body {
        EventBody::SessionCreated { session, repository, base_branch, base_commit, branch, author, .. } => {
            let from = format!("{} at {}", clean(base_branch), short(base_commit));
            let title = piece(Tone::Strong, format!("session {session}"));
            vec![
                vec![title, plain(format!(" on {}", clean(repository)))],
                vec![plain(format!("  from {from} to {}, for {}", clean(branch), person(author)))],
            ]
        }
        EventBody::WorkspaceRequested => faint("workspace: making it".to_owned()),
        EventBody::WorkspaceReady { took_ms, restored } => {
            let files = if *restored { ", with the files of before" } else { "" };
            faint(format!("workspace: ready in {}{files}", duration(*took_ms)))
        }
        EventBody::WorkspaceLost { reason, cut_off: None } => with(Tone::Caution, "workspace lost:", reason),
        EventBody::WorkspaceLost { reason, cut_off: Some(_) } => with(Tone::Bad, "✗ sandbox cut off:", reason),
        EventBody::ContextAdded { source, text } => {
            faint(format!("context: {} ({} lines)", one_line(source, LINE), text.lines().count()))
        }
        EventBody::ModelRetried { attempt, of, reason, after_ms, .. } => {
            let (next, pause) = (attempt + 1, duration(*after_ms));
            let rest = format!(" {}; asking again in {pause} (attempt {next} of {of})", clean(reason));
            vec![vec![piece(Tone::Caution, "the model did not answer:"), piece(Tone::Plain, rest)]]
        }
        EventBody::ContextCompacted { replaced, reason, by, tokens_before, tokens_after, .. } => {
            let who = if *by == Summarizer::Host { ", listed by the host" } else { "" };
            let tokens = format!("about {tokens_before} → {tokens_after} tokens");
            let rest = format!(" {replaced} messages became a summary{who} ({tokens}); {}", clean(reason));
            vec![vec![piece(Tone::Caution, "context compacted:"), piece(Tone::Plain, rest)]]
        }
        EventBody::ProcessStarted { process, command, by } => {
            let rest = format!(" {}: {} (by {})", clean(process), one_line(command, LINE), person(by));
            vec![vec![piece(Tone::Strong, "started in the background:"), plain(rest)]]
        }
        EventBody::ProcessEnded { .. } | EventBody::ServiceChanged { .. } | EventBody::ServicesRefused { .. } => {
            beside(body)
        }
        EventBody::TerminalOpened { terminal, by } => {
            let rest = format!(" {} (by {})", clean(terminal), person(by));
            vec![vec![piece(Tone::Strong, "terminal opened:"), plain(rest)]]
        }
        EventBody::PreviewOpened { port, .. } => faint(format!("preview of port {port} opened")),
        EventBody::StopRequested => vec![vec![piece(Tone::Caution, "stop was asked for")]],
        EventBody::BranchPushed { branch, commit } => faint(format!("pushed {} at {}", clean(branch), short(commit))),
        EventBody::PullRequestOpened { number, title, url, .. } => {
            address(format!("pull request #{number} is open: {}", one_line(title, LINE)), url)
        }
        EventBody::PullRequestUpdated { number, commit, url, .. } => {
            address(format!("pull request #{number} is now at {}", short(commit)), url)
        }
        EventBody::PublishSkipped { reason, failure: None } => {
            vec![vec![plain(format!("nothing to publish: {}", clean(reason)))]]
        }
        EventBody::PublishSkipped { reason, failure: Some(_) } => with(Tone::Bad, "✗ not published:", reason),
        EventBody::EgressDecided { .. } | EventBody::EgressTraffic { .. } => egress(body),
        EventBody::Notice { text } => with(Tone::Caution, "note:", text),
        _ => Vec::new(),
    }
}

/// What became of services and background commands.
fn beside(body: &EventBody) -> Vec<Line> {
    match body {
        EventBody::ProcessEnded { process, exit_status, output, .. } => {
            let tone = if *exit_status == 0 { Tone::Strong } else { Tone::Caution };
            let rest = format!(" {} with status {exit_status}", clean(process));
            let mut lines = vec![vec![piece(tone, "ended in the background:"), plain(rest)]];
            lines.extend(last_output(output));
            lines
        }
        EventBody::ServiceChanged { service, state, why, output, .. } => {
            let why = why.as_deref().map_or_else(String::new, |why| format!(": {}", one_line(why, 2 * LINE)));
            let tone = match state {
                ServiceState::Ready => Tone::Good,
                ServiceState::Failed => Tone::Bad,
                ServiceState::Restarting | ServiceState::Stopped => Tone::Caution,
                _ => Tone::Faint,
            };
            let mut lines =
                vec![vec![piece(tone, format!("service {} is {}", clean(service), state.as_str())), plain(why)]];
            lines.extend(output.iter().flat_map(|output| last_output(output)));
            lines
        }
        EventBody::ServicesRefused { reason } => {
            vec![vec![piece(Tone::Bad, "✗ no services:"), plain(format!(" {}", clean(reason)))]]
        }
        _ => Vec::new(),
    }
}

/// The last lines of what a command wrote.
fn last_output(output: &str) -> Vec<Line> {
    let cleaned = clean(output.trim_end());
    cleaned.lines().map(|line| vec![piece(Tone::Faint, format!("  | {}", one_line(line, LINE)))]).collect()
}

/// What the sandbox did on the network.
fn egress(body: &EventBody) -> Vec<Line> {
    let line = match body {
        EventBody::EgressDecided { host, port, verdict, why, times, .. } => {
            let port = match (port, verdict) {
                (Some(port), _) => format!(":{port}"),
                // Many hosts together.
                (None, EgressVerdict::Allowed) => String::new(),
                (None, _) => " (look-up)".to_owned(),
            };
            let place = format!("{}{port}", one_line(host, LINE));
            let times = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            let why = one_line(why, LINE);
            match verdict {
                EgressVerdict::Allowed => vec![piece(Tone::Faint, format!("network: {place} by {why}{times}"))],
                EgressVerdict::Refused => {
                    vec![piece(Tone::Caution, "network refused:"), plain(format!(" {place}: {why}{times}"))]
                }
                EgressVerdict::Failed => {
                    vec![piece(Tone::Caution, "network failed:"), plain(format!(" {place}: {why}{times}"))]
                }
            }
        }
        EventBody::EgressTraffic { host, port, connections, bytes_up, bytes_down } => {
            let port = if *port == 0 { String::new() } else { format!(":{port}") };
            let place = format!("{}{port}", one_line(host, LINE));
            let what = if *connections == 0 { "goes on".to_owned() } else { format!("closed {connections}") };
            let text = format!("network: {place} {what}, {bytes_up} bytes up, {bytes_down} down");
            vec![piece(Tone::Faint, text)]
        }
        _ => return Vec::new(),
    };
    vec![line]
}

/// A prompt, with who gave it where that is not the session's author.
fn prompt(text: &str, by: &Person, author: Option<&Person>) -> Vec<Line> {
    let cleaned = clean(text.trim_end());
    let mut lines: Vec<Line> = vec![Vec::new()];
    lines.extend(cleaned.lines().map(|line| vec![piece(Tone::Strong, format!("> {line}"))]));
    if author != Some(by)
        && let Some(last) = lines.last_mut()
    {
        last.push(plain(format!("  ({})", person(by))));
    }
    lines.push(Vec::new());
    lines
}

fn turn_finished(outcome: &TurnOutcome) -> Line {
    let because = |word: &str, why: &str| vec![piece(Tone::Bad, word), plain(format!(" {}", clean(why)))];
    match outcome {
        TurnOutcome::Done => vec![piece(Tone::Good, "✓ turn done")],
        TurnOutcome::Stopped => vec![piece(Tone::Caution, "✗ turn stopped")],
        TurnOutcome::Interrupted => vec![piece(Tone::Bad, "✗ turn interrupted: the host went away")],
        TurnOutcome::Halted { reason } => because("✗ turn halted:", reason),
        TurnOutcome::Failed { message, .. } => because("✗ turn failed:", message),
    }
}

/// What the hooks decided, with their reasons; `None` where they let it pass.
pub fn decision(verdict: Verdict, reasons: &[Reason]) -> Option<Line> {
    let (tone, word) = match verdict {
        Verdict::Pass => return None,
        Verdict::Rewrite => (Tone::Caution, "rewritten"),
        Verdict::Ask => (Tone::Caution, "needs a person"),
        Verdict::Defer => (Tone::Caution, "deferred"),
        Verdict::Deny => (Tone::Bad, "✗ denied"),
        Verdict::Halt => (Tone::Bad, "✗ halted"),
    };
    let mut line = vec![piece(tone, word)];
    if !reasons.is_empty() {
        let one = |reason: &Reason| format!("by {}: {}", clean(&reason.plugin), one_line(&reason.text, LINE));
        line.push(plain(format!(" {}", reasons.iter().map(one).collect::<Vec<_>>().join("; "))));
    }
    Some(line)
}

/// How a tool call ended, and how long it took.
pub fn result(outcome: ToolOutcome, exit_status: Option<i32>, took_ms: u64) -> Line {
    let (tone, word) = match (outcome, exit_status) {
        (ToolOutcome::Done, None | Some(0)) => (Tone::Good, "✓ done".to_owned()),
        (ToolOutcome::Done, Some(status)) => (Tone::Bad, format!("✗ exit {status}")),
        (ToolOutcome::Failed, _) => (Tone::Bad, "✗ failed".to_owned()),
        (ToolOutcome::Denied, _) => (Tone::Bad, "✗ never ran".to_owned()),
        (ToolOutcome::Stopped, _) => (Tone::Bad, "✗ stopped".to_owned()),
        (ToolOutcome::TimedOut, _) => (Tone::Bad, "✗ ran out of time".to_owned()),
        (ToolOutcome::OutputLimit, _) => (Tone::Bad, "✗ wrote too much".to_owned()),
        (ToolOutcome::Unknown, _) => (Tone::Bad, "✗ outcome unknown: the host or the sandbox went away".to_owned()),
    };
    let mut line = vec![piece(tone, word)];
    if outcome != ToolOutcome::Denied {
        line.push(plain(" "));
        line.push(piece(Tone::Faint, format!("in {}", duration(took_ms))));
    }
    line
}

/// That there is more output than the event holds.
pub fn whole_output(blob: &Blob) -> Piece {
    piece(Tone::Faint, format!(", {} bytes of output in all", blob.bytes))
}

/// A call as it was asked for and as it runs, where the hooks made a difference.
pub fn rewritten(tool: &str, asked: &Value, runs: &Value) -> Vec<Line> {
    let one = |word: &str, arguments: &Value| vec![plain(format!("{word} {}", target(tool, arguments)))];
    vec![one("asked", asked), one("runs ", runs)]
}

/// What a call is about, in one line: the command, the file, or all of it.
pub fn target(tool: &str, arguments: &Value) -> String {
    let field = |name: &str| arguments.get(name).and_then(Value::as_str);
    let known = match tool {
        "shell" => field("command").map(str::to_owned),
        "search" => field("pattern").map(|pattern| match field("path") {
            Some(path) => format!("{pattern} in {path}"),
            None => pattern.to_owned(),
        }),
        _ => field("path").map(str::to_owned),
    };
    let text = match (known, arguments) {
        (Some(known), _) => known,
        (None, Value::Null) => String::new(),
        (None, arguments) => arguments.to_string(),
    };
    one_line(&text, LINE)
}

fn plain(text: impl Into<String>) -> Piece {
    piece(Tone::Plain, text)
}

fn person(person: &Person) -> String {
    clean(&format!("{} <{}>", person.name, person.email))
}

fn short(commit: &str) -> String {
    clean(commit).chars().take(12).collect()
}

/// The line as lines without breaks in them.
fn split(line: Line) -> Vec<Line> {
    let mut lines = vec![Line::new()];
    for Piece { tone, text } in line {
        for (number, part) in text.split('\n').enumerate() {
            if number > 0 {
                lines.push(Line::new());
            }
            if let Some(last) = lines.last_mut() {
                last.push(piece(tone, part));
            }
        }
    }
    lines
}
