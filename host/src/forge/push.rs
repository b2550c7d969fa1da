//! The command list of a push, read and judged before git sees a byte of it; and the answer to a refused one.
//!
//! ```text
//!  shallow <commit>                                  any number
//!  <old> <new> <reference> NUL <capabilities>        the first
//!  <old> <new> <reference>                           any number
//!  0000                                              then the pack, which is not looked at here
//! ```
//!
//! Stricter than git: one spelling for everything, so that git cannot understand the same bytes otherwise. Format:
//! gitprotocol-pack(5), "Reference Update Request".

use super::pkt_line::{self, Packet, PacketError};

/// The name of no object.
const ZERO: &str = "0000000000000000000000000000000000000000";

/// Longest reference, in bytes.
const MAX_REFERENCE: usize = 1024;

/// What a client wants to push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PushRequest {
    /// The updates, in order.
    pub(super) updates: Vec<RefUpdate>,
    /// What the client can do and wants, such as `report-status` or `agent=git/2.47`.
    pub(super) capabilities: Vec<String>,
}

/// One reference to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefUpdate {
    /// What the client believes it points at.
    pub(super) old: String,
    /// What it shall point at.
    pub(super) new: String,
    /// Full name.
    pub(super) reference: String,
}

impl RefUpdate {
    /// Whether the reference shall go.
    pub(super) fn is_delete(&self) -> bool {
        self.new == ZERO
    }
}

/// A command list that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PushError {
    /// The framing is broken.
    #[error("the command list of the push is malformed")]
    Packet(#[from] PacketError),
    /// A line is neither an update nor a shallow line.
    #[error("line {line} of the push is malformed: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no end in sight.
    #[error("the command list of the push is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The request ended in the middle.
    #[error("the push ended in the middle of its command list")]
    Incomplete,
}

/// Reads a command list piece by piece and keeps every byte for git.
#[derive(Debug)]
pub(super) struct CommandReader {
    bytes: Vec<u8>,
    at: usize,
    line: usize,
    limit: usize,
    request: PushRequest,
}

impl CommandReader {
    /// A reader that gives up after `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, line: 0, limit, request: PushRequest::default() }
    }

    /// Takes the next piece. Returns whether the list is complete; bytes after it are kept.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<bool, PushError> {
        self.bytes.extend_from_slice(piece);
        while let Some((packet, used)) = pkt_line::read(&self.bytes[self.at..])? {
            if self.at + used > self.limit {
                break;
            }
            match packet {
                Packet::Flush => {
                    self.at += used;
                    return Ok(true);
                }
                Packet::Data(data) => {
                    self.line += 1;
                    line(data, &mut self.request).map_err(|why| PushError::Line { line: self.line, why })?;
                    self.at += used;
                }
                Packet::Delimiter | Packet::ResponseEnd => {
                    return Err(PushError::Line { line: self.line + 1, why: "protocol version 2 has no push" });
                }
            }
        }
        // An unfinished packet may wait for the rest of it; a list that goes on may not.
        if self.bytes.len() >= self.limit { Err(PushError::TooLong { limit: self.limit }) } else { Ok(false) }
    }

    /// What was read, and every byte: the list itself and what came after it.
    pub(super) fn finish(self) -> (PushRequest, Vec<u8>) {
        (self.request, self.bytes)
    }
}

fn line(data: &[u8], request: &mut PushRequest) -> Result<(), &'static str> {
    let text = std::str::from_utf8(data).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if let Some(commit) = text.strip_prefix("shallow ") {
        return if is_object(commit) { Ok(()) } else { Err("a shallow line names one commit") };
    }
    let (command, capabilities) = match text.split_once('\0') {
        Some((_, _)) if !request.updates.is_empty() => return Err("only the first update names capabilities"),
        Some((command, capabilities)) => (command, Some(capabilities)),
        None => (text, None),
    };
    if command == "push-cert" {
        return Err("signed pushes are not taken");
    }
    let mut fields = command.splitn(3, ' ');
    let (Some(old), Some(new), Some(reference)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("an update has three fields");
    };
    if !is_object(old) || !is_object(new) {
        return Err("an update names two objects by 40 lowercase hexadecimal digits");
    }
    if reference.len() > MAX_REFERENCE || !is_reference(reference) {
        return Err("an update names a reference that begins with `refs/`");
    }
    if let Some(capabilities) = capabilities {
        if capabilities.chars().any(char::is_control) {
            return Err("a capability holds a control character");
        }
        request.capabilities = capabilities.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    request.updates.push(RefUpdate { old: old.to_owned(), new: new.to_owned(), reference: reference.to_owned() });
    Ok(())
}

fn is_object(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Git checks the rest; this keeps out what could be read in two ways.
fn is_reference(text: &str) -> bool {
    text.starts_with("refs/") && !text.chars().any(|c| c.is_control() || c == ' ')
}

/// Git's own way of saying no: a status report, so that the client prints each reason beside its reference.
///
/// A client that did not ask for a report gets the reasons as an error message, if it can show one.
pub(super) fn refusal(request: &PushRequest, reasons: &[String]) -> Vec<u8> {
    let has = |name: &str| request.capabilities.iter().any(|capability| capability == name);
    let longest = match (has("side-band-64k"), has("side-band")) {
        (true, _) => Some(pkt_line::MAX_PACKET),
        (false, true) => Some(1000),
        (false, false) => None,
    };
    let mut answer = Vec::new();
    if has("report-status") || has("report-status-v2") {
        let mut report = Vec::new();
        pkt_line::write(&mut report, b"unpack ok\n");
        for (update, reason) in request.updates.iter().zip(reasons) {
            pkt_line::write(&mut report, format!("ng {} {reason}\n", update.reference).as_bytes());
        }
        report.extend_from_slice(pkt_line::FLUSH);
        match longest {
            Some(longest) => pkt_line::write_band(&mut answer, 1, &report, longest),
            None => answer = report,
        }
    } else if let (Some(longest), Some(reason)) = (longest, reasons.first()) {
        pkt_line::write_band(&mut answer, 3, format!("{reason}\n").as_bytes(), longest);
    }
    if longest.is_some() {
        answer.extend_from_slice(pkt_line::FLUSH);
    }
    answer
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
