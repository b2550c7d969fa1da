//! The conversation in the order that providers insist on: people and models take turns, and the results of a model's
//! calls come first in the turn after it, one for each.

use std::collections::VecDeque;

use ostler_protocol::CallId;
use ostler_protocol::event::{ToolCall, ToolOutcome};

use crate::agent::message::Message;

/// Whose turn it is, and what is said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn {
    /// What the model is told.
    User { results: Vec<CallResult>, texts: Vec<String> },
    /// What the model said.
    Assistant { text: String, calls: Vec<ToolCall> },
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallResult {
    pub(super) call: CallId,
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// Orders a conversation.
pub(super) fn turns(messages: &[Message]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    let (mut results, mut texts) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            // A model that said nothing takes no turn: providers refuse an empty one.
            Message::Assistant { text, calls } if text.trim().is_empty() && calls.is_empty() => {}
            Message::Assistant { text, calls } => {
                told(&mut turns, &mut results, &mut texts);
                said(&mut turns, text.trim_end(), calls);
            }
            Message::User { text } => texts.push(text.clone()),
            Message::Context { source, text } => {
                texts.push(format!("<context source=\"{source}\">\n{text}\n</context>"));
            }
            Message::Tool { call, outcome, output, exit_status } => {
                let text = result_text(*outcome, output, *exit_status);
                results.push(CallResult { call: *call, text, is_error: *outcome != ToolOutcome::Done });
            }
        }
    }
    told(&mut turns, &mut results, &mut texts);
    complete(turns)
}

fn told(turns: &mut Vec<Turn>, results: &mut Vec<CallResult>, texts: &mut Vec<String>) {
    let (results, texts) = (std::mem::take(results), std::mem::take(texts));
    if !(results.is_empty() && texts.is_empty()) {
        turns.push(Turn::User { results, texts });
    }
}

fn said(turns: &mut Vec<Turn>, text: &str, calls: &[ToolCall]) {
    match turns.last_mut() {
        Some(Turn::Assistant { text: before, calls: earlier }) => {
            before.push_str(text);
            earlier.extend_from_slice(calls);
        }
        _ => turns.push(Turn::Assistant { text: text.to_owned(), calls: calls.to_vec() }),
    }
}

/// Gives every call exactly one result, in the order of the calls, and begins with a person's turn.
fn complete(turns: Vec<Turn>) -> Vec<Turn> {
    let mut open: Vec<ToolCall> = Vec::new();
    let mut ordered = Vec::with_capacity(turns.len());
    let mut waiting: VecDeque<Turn> = turns.into();
    if matches!(waiting.front(), Some(Turn::Assistant { .. })) {
        waiting.push_front(Turn::User { results: Vec::new(), texts: vec!["(the beginning is missing)".into()] });
    }
    while let Some(turn) = waiting.pop_front() {
        match turn {
            Turn::Assistant { ref calls, .. } => {
                open.clone_from(calls);
                ordered.push(turn);
                if !open.is_empty() && !matches!(waiting.front(), Some(Turn::User { .. })) {
                    waiting.push_front(Turn::User { results: Vec::new(), texts: Vec::new() });
                }
            }
            Turn::User { results, texts } => {
                let result_of = |call: &ToolCall| {
                    let found = results.iter().find(|result| result.call == call.call).cloned();
                    let missing = || CallResult {
                        call: call.call,
                        text: "what became of this call is not known".into(),
                        is_error: true,
                    };
                    found.unwrap_or_else(missing)
                };
                ordered.push(Turn::User { results: open.drain(..).map(|call| result_of(&call)).collect(), texts });
            }
        }
    }
    ordered
}

fn result_text(outcome: ToolOutcome, output: &str, exit_status: Option<i32>) -> String {
    let output = if output.trim().is_empty() { "(no output)" } else { output };
    let word = match outcome {
        ToolOutcome::Done | ToolOutcome::Failed | ToolOutcome::Denied | ToolOutcome::Unknown => None,
        ToolOutcome::Stopped => Some("stopped before its end"),
        ToolOutcome::TimedOut => Some("ended: it ran out of time"),
        ToolOutcome::OutputLimit => Some("ended: it wrote too much"),
    };
    match (word, exit_status) {
        (Some(word), _) => format!("({word})\n{output}"),
        (None, Some(status)) => format!("(exit status {status})\n{output}"),
        (None, None) => output.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> ToolCall {
        ToolCall { call: CallId::generate(), tool: "shell".into(), arguments: serde_json::json!({ "command": "ls" }) }
    }

    fn result(call: &ToolCall, output: &str) -> Message {
        let (outcome, output) = (ToolOutcome::Done, output.to_owned());
        Message::Tool { call: call.call, outcome, output, exit_status: Some(0) }
    }

    fn user(text: &str) -> Message {
        Message::User { text: text.into() }
    }

    fn assistant(text: &str, calls: &[ToolCall]) -> Message {
        Message::Assistant { text: text.into(), calls: calls.to_vec() }
    }

    #[test]
    fn results_come_first_in_the_order_of_the_calls_whatever_was_said_between() {
        let (one, two) = (call(), call());
        let note = |text: &str| Message::Context { source: "p".into(), text: text.into() };
        let messages = [
            user("go"),
            note("rules"),
            assistant("both", &[one.clone(), two.clone()]),
            note("between"),
            result(&two, "second"),
            result(&one, ""),
        ];
        let found = turns(&messages);
        let expected = [
            Turn::User {
                results: vec![],
                texts: vec!["go".into(), "<context source=\"p\">\nrules\n</context>".into()],
            },
            Turn::Assistant { text: "both".into(), calls: vec![one.clone(), two.clone()] },
            Turn::User {
                results: vec![
                    CallResult { call: one.call, text: "(exit status 0)\n(no output)".into(), is_error: false },
                    CallResult { call: two.call, text: "(exit status 0)\nsecond".into(), is_error: false },
                ],
                texts: vec!["<context source=\"p\">\nbetween\n</context>".into()],
            },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn turns_alternate_and_every_call_has_a_result_whatever_the_log_holds() {
        let lost = call();
        let stray = call();
        let conversations = [
            vec![assistant("first", &[]), user("go")],
            vec![user("go"), assistant("", &[]), user("again"), assistant("a", &[]), assistant("b", &[])],
            vec![user("go"), assistant("x", std::slice::from_ref(&lost))],
            vec![user("go"), assistant("x", std::slice::from_ref(&lost)), user("next")],
            vec![user("go"), result(&stray, "of nothing")],
        ];
        for conversation in conversations {
            let found = turns(&conversation);
            let mut open: Vec<CallId> = Vec::new();
            for (position, turn) in found.iter().enumerate() {
                match turn {
                    Turn::User { results, .. } => {
                        assert_eq!(position % 2, 0, "{found:?}");
                        let answered: Vec<CallId> = results.iter().map(|result| result.call).collect();
                        assert_eq!(answered, std::mem::take(&mut open), "{found:?}");
                    }
                    Turn::Assistant { calls, .. } => {
                        assert_eq!(position % 2, 1, "{found:?}");
                        open = calls.iter().map(|call| call.call).collect();
                    }
                }
            }
            assert!(open.is_empty(), "{found:?}");
        }
    }
}
