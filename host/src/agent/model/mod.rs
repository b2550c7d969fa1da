//! Models: a conversation goes in, words and tool calls come out.

mod scripted;

use async_trait::async_trait;
use ostler_protocol::ErrorCode;
use tokio::sync::mpsc;

use super::message::Message;
use super::tools::ToolDefinition;

pub use scripted::{Script, ScriptError, ScriptedModel};

/// A model.
#[async_trait]
pub trait Model: Send + Sync {
    /// Its name, such as `scripted/demo`.
    fn name(&self) -> &str;

    /// Asks the model. Pieces of text go to `deltas` as they come; a full queue drops them, they are volatile. The
    /// answer holds everything. Cancelled by dropping the future.
    async fn respond(&self, request: Request, deltas: mpsc::Sender<String>) -> Result<Response, ModelError>;
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
    /// What it wants done, in order: tool name and arguments.
    pub calls: Vec<(String, serde_json::Value)>,
    /// Time to the first piece of text or the first call, in milliseconds.
    pub first_token_ms: u64,
}

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
}

impl ModelError {
    /// The code under which clients see it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::ModelFailed
    }
}
