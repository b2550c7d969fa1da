//! Why a model did not answer: in words for people, and whether asking again may help.

use std::time::Duration;

use ostler_protocol::ErrorCode;

/// Why a model did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The script expected another result of a tool.
    #[error("turn {turn} of the script {script} expects {expected} of call {call}, but {found}")]
    Unexpected {
        /// Name of the script.
        script: String,
        /// Its turn, from 1.
        turn: usize,
        /// Position of the call in the turn before, from 0.
        call: usize,
        /// What it expects.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The script has no more turns.
    #[error(
        "script_exhausted: the script {script} has {turns} turns and the agent asked for turn {asked}; \
         end the script with a turn without calls, or add turns"
    )]
    ScriptExhausted {
        /// Name of the script.
        script: String,
        /// Turns that it has.
        turns: usize,
        /// Turn that was asked for, from 1.
        asked: usize,
    },
    /// No HTTP client can be made.
    #[error("no secure connection can be made: install the certificates of authorities (ca-certificates)")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke before an answer began.
    #[error("could not reach the provider `{provider}` at {address}")]
    Unreachable {
        /// Which provider.
        provider: String,
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("the provider `{provider}` sent nothing for {seconds} s{while_doing}")]
    Silent {
        /// Which provider.
        provider: String,
        /// How long.
        seconds: f32,
        /// Where in the answer, such as ` in the middle of an answer`.
        while_doing: &'static str,
    },
    /// The answer had no end.
    #[error("the answer of the provider `{provider}` {limit}")]
    Endless {
        /// Which provider.
        provider: String,
        /// Which limit it passed.
        limit: String,
    },
    /// The stream ended before the answer did, or made no sense. Nothing of it was used.
    #[error("the answer of the provider `{provider}` broke off: {why}")]
    Broken {
        /// Which provider.
        provider: String,
        /// What was wrong.
        why: String,
    },
    /// The provider wants another key, or one at all.
    #[error("the provider `{provider}` refused the key ({status}): {message}; {advice}")]
    Key {
        /// Which provider.
        provider: String,
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
        /// Where a key comes from.
        advice: String,
    },
    /// The provider does not have this model.
    #[error("the provider `{provider}` has no model `{model}`: {message}{known}")]
    NoSuchModel {
        /// Which provider.
        provider: String,
        /// Which model.
        model: String,
        /// In its words.
        message: String,
        /// What it has, as the end of the sentence.
        known: String,
    },
    /// What answers is not the API of a model.
    #[error(
        "{address} answered {found}, not as a model's API does: check the provider's base URL \
         (that of chat completions usually ends with /v1)"
    )]
    NotAnApi {
        /// What was called.
        address: String,
        /// What came, such as `a web page (text/html)`.
        found: String,
    },
    /// Too many requests.
    #[error("the provider `{provider}` wants fewer requests ({status}): {message}")]
    RateLimited {
        /// Which provider.
        provider: String,
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// The account has no credit left.
    #[error("the provider `{provider}` wants to be paid ({status}): {message}")]
    NoCredit {
        /// Which provider.
        provider: String,
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
    /// The provider has too much to do, or failed.
    #[error("the provider `{provider}` failed ({status}): {message}")]
    Unavailable {
        /// Which provider.
        provider: String,
        /// HTTP status, or the kind of error where it came within a stream.
        status: String,
        /// In its words.
        message: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// The provider takes the request for wrong.
    #[error("the provider `{provider}` refused the request ({status}): {message}")]
    Refused {
        /// Which provider.
        provider: String,
        /// HTTP status, or the kind of error where it came within a stream.
        status: String,
        /// In its words.
        message: String,
    },
    /// The conversation does not fit into the model's context.
    #[error("the conversation does not fit into the context of the model: {message}")]
    ContextFull {
        /// In the provider's words.
        message: String,
    },
    /// The model will not answer.
    #[error("the model declined to answer: {reason}")]
    Declined {
        /// What it or its provider said.
        reason: String,
    },
}

/// Whether and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would not help.
    No,
    /// After a pause of ours.
    Soon,
    /// After the pause that the provider named.
    After(Duration),
}

impl ModelError {
    /// The code under which clients see it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::ModelFailed
    }

    /// Whether asking again may help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        let after = |pause: &Option<Duration>| pause.map_or(Retry::Soon, Retry::After);
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => Retry::Soon,
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => after(retry_after),
            Self::NoCredit { .. }
            | Self::Unexpected { .. }
            | Self::ScriptExhausted { .. }
            | Self::Client(_)
            | Self::Endless { .. }
            | Self::Key { .. }
            | Self::NoSuchModel { .. }
            | Self::NotAnApi { .. }
            | Self::Refused { .. }
            | Self::ContextFull { .. }
            | Self::Declined { .. } => Retry::No,
        }
    }
}
