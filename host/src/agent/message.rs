//! The conversation with the model, independent of any provider.

use ostler_protocol::CallId;
use ostler_protocol::event::{ToolCall, ToolOutcome};

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// What a person asked.
    User {
        /// Their words.
        text: String,
    },
    /// What the host or a plugin adds.
    Context {
        /// A file or a plugin.
        source: String,
        /// What it says.
        text: String,
    },
    /// What the model said.
    Assistant {
        /// Its words.
        text: String,
        /// What it wants done.
        calls: Vec<ToolCall>,
    },
    /// What became of a call.
    Tool {
        /// Which.
        call: CallId,
        /// How it ended.
        outcome: ToolOutcome,
        /// What the model is told.
        output: String,
        /// Exit status, for commands.
        exit_status: Option<i32>,
    },
}
