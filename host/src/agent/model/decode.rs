//! What the readers of both providers' streams have in common.

use serde_json::Value;

use super::answer::{Answer, Unusable};
use crate::sse::Frame;

/// Longest piece of somebody else's words in an error, in characters.
const QUOTE: usize = 500;

/// Reads the frames of one answer.
pub(super) trait Decoder: Send {
    /// Takes a frame.
    fn frame(&mut self, frame: &Frame) -> Result<Told, WireError>;
    /// The answer, once the stream has ended.
    fn finish(self: Box<Self>) -> Answer;
}

/// What a frame told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that a person would see.
    Nothing,
    /// That the model is answering.
    Sign,
    /// A piece of text.
    Text(String),
    /// That the answer is over.
    End,
}

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// It makes no sense.
    Malformed(String),
    /// The provider says that something failed.
    Provider {
        /// The kind of error, in its words.
        kind: String,
        /// What it says.
        message: String,
    },
    /// It cannot become an answer.
    Unusable(Unusable),
}

impl From<Unusable> for WireError {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl WireError {
    pub(super) fn not_json(data: &str) -> Self {
        Self::Malformed(format!("a piece of it is no JSON: {data}"))
    }

    /// The error that an object `{"error": …}` tells.
    pub(super) fn of_provider(data: &Value) -> Self {
        let (kind, message) = error_of(data);
        Self::Provider { kind, message }
    }
}

/// Kind and words of an error, in any of the shapes that providers and local servers use, as they came.
pub(super) fn error_of(data: &Value) -> (String, String) {
    let error = match &data["error"] {
        Value::Null => data,
        error => error,
    };
    let kind = [&error["code"], &error["type"], &data["type"]].into_iter().find_map(string).unwrap_or("error");
    let detail = &error["detail"];
    let words = error.as_str().or_else(|| string(&error["message"])).or_else(|| string(detail));
    let message = words.map_or_else(|| error.to_string(), str::to_owned);
    (kind.to_owned(), message)
}

/// Somebody else's words, fit for one line: short and without anything that steers a terminal.
pub(super) fn quote(text: &str) -> String {
    let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut plain = plain.chars().filter(|c| !c.is_control());
    let mut cut: String = plain.by_ref().take(QUOTE).collect();
    if plain.next().is_some() {
        cut.push('…');
    }
    cut
}

/// A text that is there and not empty.
pub(super) fn string(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// A number that is not negative; some gateways write it as text or with a fraction.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        // Counts of tokens are far below what a float holds exactly.
        other => other.as_u64().or_else(|| other.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_found_in_every_shape() {
        let cases = [
            (
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                "overloaded_error",
                "Overloaded",
            ),
            (
                json!({"error": {"message": "no", "type": "invalid_request_error", "code": "model_not_found"}}),
                "model_not_found",
                "no",
            ),
            (json!({"error": {"message": "no", "type": "x", "code": null}}), "x", "no"),
            (json!({"error": {"message": "no", "code": 400}}), "error", "no"),
            (json!({"error": "model 'x' not found"}), "error", "model 'x' not found"),
            (
                json!({"object": "error", "message": "too long", "type": "BadRequestError"}),
                "BadRequestError",
                "too long",
            ),
            (json!({"detail": "Not Found"}), "error", "Not Found"),
            (json!({"detail": [{"loc": 1}]}), "error", "{\"detail\":[{\"loc\":1}]}"),
        ];
        for (data, kind, message) in cases {
            assert_eq!(error_of(&data), (kind.to_owned(), message.to_owned()), "{data}");
        }
    }

    #[test]
    fn quoted_words_are_short_and_harmless() {
        assert_eq!(quote("a\n\u{1b}[31m b\t\tc"), "a [31m b c");
        assert_eq!(quote(&"x".repeat(QUOTE + 1)).chars().count(), QUOTE + 1);
    }
}
