//! Providers of models: where they are, how they are asked, what their models hold.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Secret;

/// A provider of models, complete: defaults and environment are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSettings {
    /// What it speaks.
    pub kind: ProviderKind,
    /// Where it is, without a slash at the end: `https://api.anthropic.com`, `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// Key that it wants, where it wants one.
    pub api_key: Option<Secret>,
    /// What is known of its models, by name. A model that is not here is asked all the same.
    pub models: BTreeMap<String, ModelSettings>,
    /// Attempts at one request before the turn fails, 1 to 20.
    pub max_attempts: u32,
    /// Longest wait for the first byte of an answer, and between two pieces of it.
    pub idle_timeout: Duration,
    /// Longest time of one answer from its first byte to its last.
    pub answer_timeout: Duration,
}

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Anthropic's Messages, `POST {base_url}/v1/messages`.
    Anthropic,
    /// OpenAI's chat completions, `POST {base_url}/chat/completions`.
    OpenAi,
}

/// What is known of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSettings {
    /// Tokens that its context holds, the answer included. Where it is not known, a context that grows too long is
    /// noticed by the provider's refusal.
    pub context_tokens: Option<u32>,
    /// Most tokens of one answer; the provider's own limit where absent (Anthropic wants one: 8,192).
    pub max_output_tokens: Option<u32>,
}

impl ProviderSettings {
    /// Address of Anthropic's own service.
    pub const ANTHROPIC: &str = "https://api.anthropic.com";
    /// Address of OpenAI's own service.
    pub const OPENAI: &str = "https://api.openai.com/v1";

    /// A provider with every default.
    #[must_use]
    pub fn new(kind: ProviderKind) -> Self {
        let base_url = match kind {
            ProviderKind::Anthropic => Self::ANTHROPIC,
            ProviderKind::OpenAi => Self::OPENAI,
        };
        Self {
            kind,
            base_url: base_url.to_owned(),
            api_key: None,
            models: BTreeMap::new(),
            max_attempts: 5,
            idle_timeout: Duration::from_secs(120),
            answer_timeout: Duration::from_secs(900),
        }
    }
}
