//! A conversation that grows too long for its model: how long it is, what of it is replaced, and by what.
//!
//! ```text
//!  session context │ earlier summary, prompts, answers, results │ the last of them
//!  ── kept ─────── │ ── replaced by one summary ──────────────── │ ── kept ───────
//! ```
//!
//! Pure. What replaces the beginning stands in an event, so that a restarted host has the same conversation. A prompt under
//! way and the instructions of the repository and of plugins are never replaced. Who writes the summary is the
//! session's business: the model, or [`host_summary`] where the model cannot.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::message::Message;
use super::model::{Limits, Request};

/// Where a summary in a conversation is from.
pub const SOURCE: &str = "summary of the conversation so far";

/// Bytes of a token, as a rough rule for code and English. Rather too few: too early is better than refused.
const BYTES_PER_TOKEN: u64 = 3;

/// Tokens of the system prompt and the tools, roughly.
const OVERHEAD: u64 = 2_000;

/// Longest summary that is kept, in bytes.
pub const MAX_SUMMARY: usize = 32 * 1024;

/// Most of one message that the summarizer sees, in bytes.
const EXCERPT: usize = 2_000;

/// What the summarizer may see where the model's context is not known, in tokens.
const UNKNOWN_CONTEXT: u64 = 32_000;

const PROMPT: &str = include_str!("summary_prompt_v1.md");

/// Estimated tokens of a conversation. `known` are the messages that the provider counted, and its count.
#[must_use]
pub fn tokens(conversation: &[Message], known: Option<(usize, u64)>) -> u64 {
    let (counted, tokens) = known.unwrap_or((0, OVERHEAD));
    let rest = conversation.get(counted..).unwrap_or_default();
    rest.iter().map(|message| bytes(message) / BYTES_PER_TOKEN + 8).sum::<u64>().saturating_add(tokens)
}

/// Whether a conversation of so many tokens leaves too little of the context for an answer.
#[must_use]
pub fn is_too_long(tokens: u64, limits: Limits) -> bool {
    let Some(context) = limits.context_tokens.map(u64::from) else { return false };
    let answer = limits.max_output_tokens.map_or(context / 8, u64::from).min(context / 2);
    tokens > context.saturating_sub(answer).saturating_sub(context / 20)
}

/// How many messages at the beginning to replace, so that what stays has at most a quarter of the context, or of what
/// there is where the context is not known; half as much with each time in a row. 0 where nothing can be.
#[must_use]
pub fn replaceable(conversation: &[Message], tokens: u64, limits: Limits, times: u32) -> usize {
    let whole = limits.context_tokens.map_or(tokens, u64::from).min(tokens.max(1));
    let budget = (whole / 4) >> times.min(16);
    let mut kept = 0;
    let mut cut = conversation.len();
    for (position, message) in conversation.iter().enumerate().rev() {
        kept += bytes(message) / BYTES_PER_TOKEN + 8;
        if kept > budget {
            break;
        }
        // A result must not lose its call.
        if !matches!(message, Message::Tool { .. } | Message::Context { .. }) {
            cut = position;
        }
    }
    let stays = staying(conversation, cut);
    if stays.len() < cut { cut } else { 0 }
}

/// The conversation with its first `replaced` messages replaced.
#[must_use]
pub fn apply(conversation: &[Message], replaced: usize, summary: &str) -> Vec<Message> {
    let cut = replaced.min(conversation.len());
    let (instructions, prompts): (Vec<_>, Vec<_>) =
        staying(conversation, cut).into_iter().cloned().partition(|message| matches!(message, Message::Context { .. }));
    let summary = Message::Context { source: SOURCE.into(), text: summary.to_owned() };
    instructions.into_iter().chain([summary]).chain(prompts).chain(conversation[cut..].iter().cloned()).collect()
}

/// What is kept of the messages before the cut: what the session began with, and the prompt under way.
fn staying(conversation: &[Message], cut: usize) -> Vec<&Message> {
    let begun = conversation.iter().position(|said| matches!(said, Message::Assistant { .. })).unwrap_or(usize::MAX);
    let asked = conversation.iter().rposition(|said| matches!(said, Message::User { .. }));
    let stays = |(position, said): &(usize, &Message)| match said {
        Message::Context { source, .. } => source != SOURCE && *position < begun,
        Message::User { .. } => asked == Some(*position),
        Message::Assistant { .. } | Message::Tool { .. } => false,
    };
    conversation[..cut].iter().enumerate().filter(stays).map(|(_, said)| said).collect()
}

/// What to ask the model, to get a summary of the messages that are to be replaced.
#[must_use]
pub fn request(replaced: &[Message], limits: Limits) -> Request {
    let room = limits.context_tokens.map_or(UNKNOWN_CONTEXT, |context| u64::from(context) / 2);
    let room = usize::try_from(room.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX);
    let text = transcript(replaced, room);
    let messages =
        vec![Message::User { text: format!("<transcript>\n{text}\n</transcript>\n\nWrite the summary now.") }];
    Request { system: PROMPT.to_owned(), messages, tools: Vec::new() }
}

/// The messages as one text of at most about `room` bytes; the middle is left out where it is longer.
fn transcript(messages: &[Message], room: usize) -> String {
    let entries: Vec<String> = messages.iter().map(entry).collect();
    let total: usize = entries.iter().map(String::len).sum();
    if total <= room {
        return entries.concat();
    }
    let mut head = String::new();
    let mut tail: Vec<&str> = Vec::new();
    let mut used = 0;
    let (mut first, mut last) = (0, entries.len());
    // From both ends in turn, until there is no more room.
    while first < last {
        let next = if first <= entries.len() - last { &entries[first] } else { &entries[last - 1] };
        if used + next.len() > room {
            break;
        }
        used += next.len();
        if first <= entries.len() - last {
            head.push_str(next);
            first += 1;
        } else {
            tail.push(next);
            last -= 1;
        }
    }
    tail.reverse();
    format!("{head}[{} messages left out]\n\n{}", last - first, tail.concat())
}

fn entry(message: &Message) -> String {
    match message {
        Message::User { text } => format!("PERSON:\n{}\n\n", excerpt(text)),
        Message::Context { source, text } => format!("CONTEXT ({source}):\n{}\n\n", excerpt(text)),
        Message::Assistant { text, calls } => {
            let mut entry = format!("AGENT:\n{}\n", excerpt(text));
            for call in calls {
                // Writing to a `String` cannot fail.
                let _ = writeln!(entry, "CALLS {} {}", call.tool, excerpt(&call.arguments.to_string()));
            }
            entry + "\n"
        }
        Message::Tool { outcome, output, exit_status, .. } => {
            let status = exit_status.map(|status| format!(", exit status {status}")).unwrap_or_default();
            format!("RESULT ({outcome:?}{status}):\n{}\n\n", excerpt(output))
        }
    }
}

/// The summary that needs no model: the prompts, the files and the commands, and the last words.
#[must_use]
pub fn host_summary(replaced: &[Message]) -> String {
    let mut prompts = Vec::new();
    let mut earlier = Vec::new();
    let mut files = BTreeSet::new();
    let mut commands = Vec::new();
    let mut last_words = None;
    for message in replaced {
        match message {
            Message::User { text } => prompts.push(format!("- {}", excerpt(text))),
            Message::Context { source, text } if source == SOURCE => earlier.push(excerpt(text)),
            Message::Assistant { text, calls } => {
                if !text.trim().is_empty() {
                    last_words = Some(excerpt(text));
                }
                for call in calls {
                    match (call.arguments["path"].as_str(), call.arguments["command"].as_str()) {
                        (_, Some(command)) => commands.push(format!("- {}", excerpt(command))),
                        (Some(path), None) => drop(files.insert(format!("- {} {path}", call.tool))),
                        (None, None) => {}
                    }
                }
            }
            Message::Context { .. } | Message::Tool { .. } => {}
        }
    }
    let commands = commands.split_off(commands.len().saturating_sub(40));
    let parts = [
        ("Earlier summary:", earlier),
        ("What was asked so far:", prompts),
        ("Files that were looked at or changed:", files.into_iter().collect()),
        ("The last commands that were run:", commands),
        ("The agent's last words in this part:", last_words.into_iter().collect()),
    ];
    let parts = parts.into_iter().filter(|(_, lines)| !lines.is_empty());
    let text: Vec<String> = parts.map(|(title, lines)| format!("{title}\n{}\n", lines.join("\n"))).collect();
    let note = "(Listed by the host: the model could not summarize. Read files again where details matter.)\n\n";
    limited(&format!("{note}{}", text.join("\n")), MAX_SUMMARY)
}

/// At most `limit` bytes of a text, cut at a character, with a note where something is missing.
#[must_use]
pub fn limited(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let cut = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}… ({} bytes left out)", &text[..cut], text.len() - cut)
}

fn excerpt(text: &str) -> String {
    limited(text.trim(), EXCERPT)
}

fn bytes(message: &Message) -> u64 {
    let bytes = match message {
        Message::User { text } => text.len(),
        Message::Context { source, text } => source.len() + text.len(),
        Message::Assistant { text, calls } => {
            let calls = calls.iter().map(|call| call.tool.len() + call.arguments.to_string().len() + 32);
            text.len() + calls.sum::<usize>()
        }
        Message::Tool { output, .. } => output.len() + 32,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
