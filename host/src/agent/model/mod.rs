//! Models: a conversation goes in, words and tool calls come out.
//!
//! ```text
//!  Models (by name) ─► Model ─┬─ scripted: a file
//!                             └─ provider: HTTP ─► anthropic | openai (request, stream) ─► answer
//! ```
//!
//! One call of [`Model::respond`] is one attempt. Trying again, pauses and what people see of it are the session's
//! business. The wire formats are our own: the crates that were looked at hand out calls of answers that broke off, grow
//! without bound with a stream, lose calls without a position, or switch a feature of `serde_json` on for everybody.

mod models;
mod scripted;

mod provider;

mod anthropic;
mod openai;

mod answer;
mod decode;
mod turns;

mod error;
mod refusal;

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use ostler_protocol::event::{ModelStop, Usage};
use tokio::sync::mpsc;

use super::message::Message;
use super::tools::ToolDefinition;

pub use error::{ModelError, Retry};
pub use models::{Models, UnknownModel};
pub use provider::{Provider, ProviderModel};
pub use scripted::{Script, ScriptError, ScriptedModel};

/// A model.
#[async_trait]
pub trait Model: Send + Sync {
    /// Its name, such as `scripted/demo`.
    fn name(&self) -> &str;

    /// What it holds, and how patiently it is asked.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Asks the model, once. Pieces of text go to `deltas` as they come; a full queue drops them, they are volatile. The
    /// answer holds everything. Cancelled by dropping the future.
    async fn respond(&self, request: Request, deltas: mpsc::Sender<String>) -> Result<Response, ModelError>;
}

/// What a model holds, and how patiently it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of its context, where that is known.
    pub context_tokens: Option<u32>,
    /// Most tokens of an answer, where that is known.
    pub max_output_tokens: Option<u32>,
    /// Attempts at one request, at least 1.
    pub max_attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { context_tokens: None, max_output_tokens: None, max_attempts: 1 }
    }
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The system prompt.
    pub system: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Tools that it may call.
    pub tools: Vec<ToolDefinition>,
}

/// What a model answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Its words.
    pub text: String,
    /// What it wants done, in order: tool name and arguments. Empty where the answer was cut.
    pub calls: Vec<(String, serde_json::Value)>,
    /// Why it stopped.
    pub stop: ModelStop,
    /// Tokens, as far as the provider said.
    pub usage: Usage,
    /// Time to the first piece of text or the first call, in milliseconds.
    pub first_token_ms: u64,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
