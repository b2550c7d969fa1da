//! What the model is told before anything else: the system prompt, a versioned file.

use super::message::Message;
use super::model::Request;
use super::tools;

/// Version of the system prompt, recorded in logs.
pub const SYSTEM_PROMPT_VERSION: u32 = 1;

const SYSTEM_PROMPT: &str = include_str!("system_prompt_v1.md");

/// Where the repository says how to work on it.
pub const INSTRUCTIONS_FILE: &str = "AGENTS.md";

/// Most of that file that goes into the context, in bytes.
pub const MAX_INSTRUCTIONS: usize = 64 * 1024;

/// What to ask the model, given the conversation so far.
#[must_use]
pub fn request(messages: &[Message], repository: &str, branch: &str, base: &str) -> Request {
    let system = SYSTEM_PROMPT.replace("{repository}", repository).replace("{branch}", branch).replace("{base}", base);
    Request { system, messages: messages.to_vec(), tools: tools::definitions() }
}
