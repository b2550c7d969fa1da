//! An answer while it arrives: what the pieces of a stream add up to, and whether the whole may be used.
//!
//! A call counts only when the answer came to its proper end and the call's arguments are whole. What a broken or cut
//! answer holds of a call is dropped here, below everything that could run it.

use serde_json::Value;

use ostler_protocol::event::{ModelStop, Usage};

use super::Response;

/// Most calls in one answer.
const MAX_CALLS: usize = 128;

/// Largest answer, its text and all of its calls together, in bytes: whoever watches gets it in one frame, with every escape of JSON.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Deepest arguments, in arrays and objects.
const MAX_DEPTH: usize = 64;

/// What arrived so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    text: String,
    calls: Vec<Call>,
    bytes: usize,
    /// Tokens, where the provider said how many.
    pub(super) usage: Usage,
    /// Why the model stopped, once it has.
    pub(super) ended: Option<Ended>,
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is done, or waits for its tools.
    Finished,
    /// It ran into the limit on its output.
    OutputLimit,
    /// The context is full.
    ContextFull,
    /// It will not answer.
    Declined(String),
    /// Its server gave up on it.
    Failed(String),
}

#[derive(Debug, Default)]
struct Call {
    /// Position that the provider gave it.
    index: u64,
    id: String,
    name: String,
    arguments: String,
}

/// A call of which more may come.
pub(super) struct OpenCall<'a> {
    /// The provider's name of it; empty where it gave none.
    pub(super) id: &'a str,
    arguments: &'a str,
}

impl OpenCall<'_> {
    /// Whether its arguments are a whole object already. Reads all of them.
    pub(super) fn is_whole(&self) -> bool {
        serde_json::from_str::<Value>(self.arguments).is_ok_and(|value| value.is_object())
    }
}

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it ended without saying why")]
    NoEnd,
    #[error("it asks for more than {MAX_CALLS} tools at once")]
    TooManyCalls,
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("a piece of a call came without its beginning")]
    NoSuchCall,
    #[error("the context of the model is full")]
    ContextFull,
    #[error("it ended with `{0}`")]
    Failed(String),
    #[error("{0}")]
    Declined(String),
}

impl Answer {
    /// Takes a piece of text.
    pub(super) fn text(&mut self, piece: &str) -> Result<(), Unusable> {
        self.count(piece)?;
        self.text.push_str(piece);
        Ok(())
    }

    fn count(&mut self, piece: &str) -> Result<(), Unusable> {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > MAX_BYTES { Err(Unusable::TooLong) } else { Ok(()) }
    }

    /// Takes the beginning of a call.
    pub(super) fn begin_call(&mut self, index: u64, id: &str, name: &str) -> Result<(), Unusable> {
        if self.calls.len() == MAX_CALLS {
            return Err(Unusable::TooManyCalls);
        }
        self.count(id)?;
        self.count(name)?;
        self.calls.push(Call { index, id: id.to_owned(), name: name.to_owned(), arguments: String::new() });
        Ok(())
    }

    /// Takes a piece of the arguments of the call that began last at this position.
    pub(super) fn arguments(&mut self, index: u64, piece: &str) -> Result<(), Unusable> {
        self.count(piece)?;
        let call = self.calls.iter_mut().rev().find(|call| call.index == index).ok_or(Unusable::NoSuchCall)?;
        call.arguments.push_str(piece);
        Ok(())
    }

    /// The call that began last at a position.
    pub(super) fn call_at(&self, index: u64) -> Option<OpenCall<'_>> {
        let call = self.calls.iter().rev().find(|call| call.index == index)?;
        Some(OpenCall { id: &call.id, arguments: &call.arguments })
    }

    /// Position of the call that began last, for pieces without one.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.calls.last().map(|call| call.index)
    }

    /// The whole answer, where it may be used.
    pub(super) fn finish(self) -> Result<Response, Unusable> {
        let stop = match self.ended.ok_or(Unusable::NoEnd)? {
            Ended::Finished => ModelStop::Finished,
            Ended::OutputLimit => ModelStop::OutputLimit,
            Ended::ContextFull => return Err(Unusable::ContextFull),
            Ended::Declined(reason) => return Err(Unusable::Declined(reason)),
            Ended::Failed(word) => return Err(Unusable::Failed(word)),
        };
        // The last call of a cut answer may be half a call that happens to be whole JSON: none of them counts.
        let calls = if stop == ModelStop::Finished { self.calls } else { Vec::new() };
        let calls = calls.into_iter().map(|call| (call.name, arguments(&call.arguments))).collect();
        Ok(Response { text: self.text, calls, usage: self.usage, stop, first_token_ms: 0 })
    }
}

/// Arguments as the model wrote them. What is no JSON, or nested deeper than any tool wants, stays a text, which no tool
/// takes: the model is told so, and what it wrote. An event that holds what is nested too deeply could not be read back.
fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    let parsed = serde_json::from_str(text).ok().filter(|value| is_shallow(value, MAX_DEPTH));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn is_shallow(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left > 0 && items.iter().all(|item| is_shallow(item, left - 1)),
        Value::Object(fields) => left > 0 && fields.values().all(|field| is_shallow(field, left - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ended: Option<Ended>) -> Answer {
        let mut answer = Answer { ended, ..Answer::default() };
        answer.text("words").unwrap();
        answer.begin_call(0, "a", "shell").unwrap();
        answer.arguments(0, "{\"command\":").unwrap();
        answer.arguments(0, "\"ls\"}").unwrap();
        answer
    }

    #[test]
    fn only_an_answer_with_a_proper_end_has_calls() {
        let whole = answer(Some(Ended::Finished)).finish().unwrap();
        assert_eq!(whole.calls, [("shell".to_owned(), serde_json::json!({ "command": "ls" }))]);
        let cut = answer(Some(Ended::OutputLimit)).finish().unwrap();
        assert_eq!((cut.text.as_str(), cut.calls.len(), cut.stop), ("words", 0, ModelStop::OutputLimit));
        assert_eq!(answer(None).finish(), Err(Unusable::NoEnd));
        assert_eq!(answer(Some(Ended::ContextFull)).finish(), Err(Unusable::ContextFull));
    }

    #[test]
    fn arguments_that_are_no_json_stay_a_text_and_none_are_an_empty_object() {
        assert_eq!(arguments("{\"a\":"), Value::String("{\"a\":".into()));
        assert_eq!(arguments(" "), serde_json::json!({}));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(arguments(&nested(MAX_DEPTH)).is_array());
        assert_eq!(arguments(&nested(MAX_DEPTH + 1)), Value::String(nested(MAX_DEPTH + 1)));
        assert!(arguments(&nested(100_000)).is_string());
    }

    #[test]
    fn an_answer_has_a_largest_size() {
        let mut answer = Answer::default();
        let quarter = "x".repeat(MAX_BYTES / 4);
        answer.begin_call(0, &quarter, &quarter).unwrap();
        answer.text(&quarter).unwrap();
        answer.arguments(0, &quarter).unwrap();
        assert_eq!(answer.text("x"), Err(Unusable::TooLong));
    }

    #[test]
    fn the_number_of_calls_is_bounded() {
        let mut answer = Answer::default();
        for index in 0..MAX_CALLS as u64 {
            answer.begin_call(index, "", "shell").unwrap();
        }
        assert_eq!(answer.begin_call(999, "", "shell"), Err(Unusable::TooManyCalls));
        assert_eq!(answer.arguments(4_000_000_000, "x"), Err(Unusable::NoSuchCall));
    }
}
