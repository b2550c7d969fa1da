//! A model that plays a conversation from a file and insists that reality matches it.
//!
//! Which turn comes next is read from the conversation (the number of answers in it), so the player has no state: a
//! restarted host goes on where it was.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ostler_protocol::event::ToolOutcome;
use regex::Regex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Model, ModelError, Request, Response, milliseconds};
use crate::agent::message::Message;

/// Version of the file format.
const VERSION: u32 = 1;

/// Characters of a streamed piece where the turn does not say.
const CHUNK: usize = 24;

/// A conversation, as a file holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    version: u32,
    model: String,
    #[serde(default, rename = "turn")]
    turns: Vec<ScriptTurn>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptTurn {
    #[serde(default)]
    expect: Vec<Expectation>,
    #[serde(default)]
    say: String,
    #[serde(default, rename = "call")]
    calls: Vec<ScriptCall>,
    chunk: Option<usize>,
    #[serde(default)]
    delay_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptCall {
    tool: String,
    arguments: serde_json::Value,
}

/// What the result of a call of the turn before must look like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// Position of the call, from 0.
    call: usize,
    outcome: Option<ToolOutcome>,
    exit_status: Option<i32>,
    /// Regular expression that the output must match somewhere.
    pattern: Option<String>,
}

/// Why a script cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("cannot read the script {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a script.
    #[error("the script {path} is malformed")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// The file is of another version.
    #[error("the script {path} has version {found}, this host plays version {VERSION}")]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file has no turns.
    #[error("the script {path} has no [[turn]]")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// A pattern is no regular expression.
    #[error("turn {turn} of the script {path} has a pattern that is no regular expression")]
    Pattern {
        /// Which.
        path: PathBuf,
        /// The turn, from 1.
        turn: usize,
        /// Why.
        #[source]
        source: regex::Error,
    },
    /// An expectation names a call that the turn before does not make.
    #[error(
        "turn {turn} of the script {path} expects something of call {call}, but the turn before makes {made} calls"
    )]
    NoSuchCall {
        /// Which.
        path: PathBuf,
        /// The turn, from 1.
        turn: usize,
        /// The named call, from 0.
        call: usize,
        /// Calls of the turn before.
        made: usize,
    },
}

impl Script {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let owned = || path.to_owned();
        let text = std::fs::read_to_string(path).map_err(|source| ScriptError::Read { path: owned(), source })?;
        let script: Self = toml::from_str(&text).map_err(|source| ScriptError::Parse { path: owned(), source })?;
        if script.version != VERSION {
            return Err(ScriptError::Version { path: owned(), found: script.version });
        }
        if script.turns.is_empty() {
            return Err(ScriptError::Empty { path: owned() });
        }
        let mut made = 0;
        for (turn, number) in script.turns.iter().zip(1..) {
            for expectation in &turn.expect {
                if expectation.call >= made {
                    return Err(ScriptError::NoSuchCall { path: owned(), turn: number, call: expectation.call, made });
                }
                if let Some(pattern) = &expectation.pattern {
                    Regex::new(pattern).map_err(|source| ScriptError::Pattern {
                        path: owned(),
                        turn: number,
                        source,
                    })?;
                }
            }
            made = turn.calls.len();
        }
        Ok(script)
    }
}

/// The player of one script.
pub struct ScriptedModel {
    name: String,
    script: Script,
}

impl ScriptedModel {
    /// A model that plays `script`.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { name: format!("scripted/{}", script.model), script }
    }

    fn check(&self, turn: usize, expectation: &Expectation, results: &[&Message]) -> Result<(), ModelError> {
        let fail = |expected: String, found: String| {
            let (script, call) = (self.script.model.clone(), expectation.call);
            Err(ModelError::Unexpected { script, turn: turn + 1, call, expected, found })
        };
        let Some(Message::Tool { outcome, output, exit_status, .. }) = results.get(expectation.call) else {
            return fail("a result".into(), "there is none".into());
        };
        if let Some(expected) = expectation.outcome
            && expected != *outcome
        {
            return fail(format!("the outcome {expected:?}"), format!("it is {outcome:?}: {}", head(output)));
        }
        if let Some(expected) = expectation.exit_status
            && *exit_status != Some(expected)
        {
            return fail(format!("exit status {expected}"), format!("it is {exit_status:?}: {}", head(output)));
        }
        if let Some(pattern) = &expectation.pattern {
            let matches = Regex::new(pattern).is_ok_and(|regex| regex.is_match(output));
            if !matches {
                return fail(format!("an output that matches `{pattern}`"), format!("it is: {}", head(output)));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Model for ScriptedModel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn respond(&self, request: Request, deltas: mpsc::Sender<String>) -> Result<Response, ModelError> {
        let started = Instant::now();
        let number = request.messages.iter().filter(|message| matches!(message, Message::Assistant { .. })).count();
        let Some(turn) = self.script.turns.get(number) else {
            let (script, turns) = (self.script.model.clone(), self.script.turns.len());
            return Err(ModelError::ScriptExhausted { script, turns, asked: number + 1 });
        };
        let results = last_results(&request.messages);
        for expectation in &turn.expect {
            self.check(number, expectation, &results)?;
        }
        let delay = Duration::from_millis(turn.delay_ms);
        let text: Vec<char> = turn.say.chars().collect();
        let mut first_token_ms = None;
        for piece in text.chunks(turn.chunk.unwrap_or(CHUNK).max(1)) {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            first_token_ms.get_or_insert_with(|| milliseconds(started.elapsed()));
            // A full queue means that nobody keeps up; the answer below holds the whole text.
            let _ = deltas.try_send(piece.iter().collect());
        }
        let calls = turn.calls.iter().map(|call| (call.tool.clone(), call.arguments.clone())).collect();
        let first_token_ms = first_token_ms.unwrap_or_else(|| milliseconds(started.elapsed()));
        Ok(Response { text: turn.say.clone(), calls, first_token_ms, ..Response::default() })
    }
}

/// Results of the calls of the last answer, in order.
fn last_results(messages: &[Message]) -> Vec<&Message> {
    let last = messages.iter().rposition(|message| matches!(message, Message::Assistant { .. }));
    let after = last.map_or(0, |last| last + 1);
    messages[after..].iter().filter(|message| matches!(message, Message::Tool { .. })).collect()
}

fn head(output: &str) -> String {
    let cut: String = output.chars().take(400).collect();
    if cut.len() < output.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use ostler_protocol::CallId;
    use ostler_protocol::event::ToolCall;

    use super::*;

    fn script(text: &str) -> Result<Script, ScriptError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.toml");
        std::fs::write(&path, text).unwrap();
        Script::read(&path)
    }

    const TWO_TURNS: &str = r#"
        version = 1
        model = "test"
        [[turn]]
        say = "looking"
        call = [{ tool = "shell", arguments = { command = "true" } }]
        [[turn]]
        expect = [{ call = 0, outcome = "done", exit_status = 1, pattern = "FAILED" }]
        say = "done"
    "#;

    async fn play(script: Script, messages: Vec<Message>) -> Result<Response, ModelError> {
        let (deltas, _keep) = mpsc::channel(64);
        let request = Request { system: String::new(), messages, tools: Vec::new() };
        ScriptedModel::new(script).respond(request, deltas).await
    }

    fn history(exit_status: i32, output: &str) -> Vec<Message> {
        let call = CallId::generate();
        let arguments = serde_json::json!({ "command": "true" });
        vec![
            Message::User { text: "go".into() },
            Message::Assistant {
                text: "looking".into(),
                calls: vec![ToolCall { call, tool: "shell".into(), arguments }],
            },
            Message::Tool { call, outcome: ToolOutcome::Done, output: output.into(), exit_status: Some(exit_status) },
        ]
    }

    #[tokio::test]
    async fn turns_follow_the_conversation() {
        let first = play(script(TWO_TURNS).unwrap(), vec![Message::User { text: "go".into() }]).await.unwrap();
        assert_eq!((first.text.as_str(), first.calls.len()), ("looking", 1));
        let second = play(script(TWO_TURNS).unwrap(), history(1, "1 FAILED")).await.unwrap();
        assert_eq!((second.text.as_str(), second.calls.len()), ("done", 0));
    }

    #[tokio::test]
    async fn another_reality_than_expected_is_an_error_that_shows_both() {
        for (status, output, expected) in [(0, "1 FAILED", "exit status 1"), (1, "all good", "matches `FAILED`")] {
            let error = play(script(TWO_TURNS).unwrap(), history(status, output)).await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(output), "{error}");
        }
    }

    #[tokio::test]
    async fn a_script_that_ends_early_says_so() {
        let mut messages = history(1, "1 FAILED");
        messages.push(Message::Assistant { text: "done".into(), calls: Vec::new() });
        messages.push(Message::User { text: "more".into() });
        let error = play(script(TWO_TURNS).unwrap(), messages).await.unwrap_err().to_string();
        assert!(error.starts_with("script_exhausted") && error.contains("turn 3"), "{error}");
    }

    #[test]
    fn bad_files_are_refused_with_place_and_reason() {
        let wrong_key = TWO_TURNS.replace("say = \"done\"", "sey = \"done\"");
        assert!(matches!(script(&wrong_key), Err(ScriptError::Parse { .. })));
        assert!(matches!(script("version = 2\nmodel = \"x\""), Err(ScriptError::Version { found: 2, .. })));
        assert!(matches!(script("version = 1\nmodel = \"x\""), Err(ScriptError::Empty { .. })));
        let no_call = TWO_TURNS.replace("call = 0", "call = 3");
        assert!(matches!(script(&no_call), Err(ScriptError::NoSuchCall { call: 3, made: 1, .. })));
        let pattern = TWO_TURNS.replace("\"FAILED\"", "\"(\"");
        assert!(matches!(script(&pattern), Err(ScriptError::Pattern { turn: 2, .. })));
    }
}
