//! What a provider's refusal means: from status, headers and body to an error that helps.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ModelError;
use super::answer::Unusable;
use super::decode::{WireError, error_of, quote};
use crate::config::{ProviderKind, ProviderSettings, env};

/// Who refused what.
pub(super) struct Origin<'a> {
    /// Name of the provider.
    pub(super) provider: &'a str,
    /// Which of its models was asked.
    pub(super) model: &'a str,
    /// Address that was called.
    pub(super) address: &'a str,
    /// How the provider is configured.
    pub(super) settings: &'a ProviderSettings,
}

impl Origin<'_> {
    pub(super) fn not_an_api(&self, found: &str) -> ModelError {
        ModelError::NotAnApi { address: self.address.to_owned(), found: self.words(found) }
    }

    /// The provider's words without the key, which some repeat, fit for a line. The key goes first: half of one, at the
    /// end of what is quoted, would not be found.
    pub(super) fn words(&self, message: &str) -> String {
        match &self.settings.api_key {
            Some(key) if !key.reveal().is_empty() => quote(&message.replace(key.reveal(), "…")),
            _ => quote(message),
        }
    }
}

/// An answer with a status that is no success.
pub(super) fn of(origin: &Origin<'_>, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let (provider, text) = (origin.provider.to_owned(), String::from_utf8_lossy(body));
    let parsed = serde_json::from_str::<Value>(&text).ok();
    let is_api = parsed.is_some();
    let (kind, message) = match &parsed {
        Some(data) => error_of(data),
        None if looks_like_a_page(&text) => (String::new(), "a web page".to_owned()),
        None if text.trim().is_empty() => (String::new(), "without a word".to_owned()),
        None => (String::new(), text.clone().into_owned()),
    };
    let message = origin.words(&message);
    let retry_after = retry_after(headers, SystemTime::now());
    let code = status.as_u16();
    match code {
        300..=399 => origin.not_an_api(&format!("with a redirect ({code})")),
        // A gateway that is in trouble answers with pages too.
        _ if !is_api && looks_like_a_page(&text) && code < 500 && code != 429 => {
            origin.not_an_api(&format!("a web page ({code})"))
        }
        _ if is_context_full(code, &kind, &message) => ModelError::ContextFull { message },
        401 | 403 => ModelError::Key { provider, status: code, message, advice: advice(origin) },
        400 | 404 if is_unknown_model(code, &kind, &message, origin.model) => {
            let model = origin.model.to_owned();
            ModelError::NoSuchModel { provider, model, message, known: String::new() }
        }
        404 => origin.not_an_api(&format!("404: {message}")),
        _ if code == 402 || (code == 429 && matches!(kind.as_str(), "insufficient_quota" | "billing_error")) => {
            ModelError::NoCredit { provider, status: code, message }
        }
        429 => ModelError::RateLimited { provider, status: code, message, retry_after },
        // 529 is Anthropic's "overloaded", 498 and the like are those of gateways in front of a server.
        408 | 409 | 425 | 500..=599 => {
            ModelError::Unavailable { provider, status: code.to_string(), message, retry_after }
        }
        _ => ModelError::Refused { provider, status: code.to_string(), message },
    }
}

/// A stream that cannot become an answer.
pub(super) fn of_wire(origin: &Origin<'_>, error: WireError) -> ModelError {
    let provider = origin.provider.to_owned();
    match error {
        WireError::Malformed(why) => ModelError::Broken { provider, why: origin.words(&why) },
        WireError::Unusable(Unusable::ContextFull) => {
            ModelError::ContextFull { message: "it ended because its context is full".into() }
        }
        WireError::Unusable(Unusable::Declined(reason)) => ModelError::Declined { reason: origin.words(&reason) },
        WireError::Unusable(Unusable::TooLong) => {
            ModelError::Endless { provider, limit: Unusable::TooLong.to_string() }
        }
        WireError::Unusable(why) => ModelError::Broken { provider, why: why.to_string() },
        WireError::Provider { kind, message } => {
            let (kind, message) = (origin.words(&kind), origin.words(&message));
            match kind.as_str() {
                _ if is_context_full(400, &kind, &message) => ModelError::ContextFull { message },
                "invalid_request_error" | "authentication_error" | "permission_error" | "not_found_error" => {
                    ModelError::Refused { provider, status: kind, message }
                }
                _ => ModelError::Unavailable { provider, status: kind, message, retry_after: None },
            }
        }
    }
}

fn looks_like_a_page(text: &str) -> bool {
    let start = text.trim_start().get(..15).unwrap_or(text.trim_start()).to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// How providers and local servers say that a conversation is too long: by a code, or only in words.
fn is_context_full(status: u16, kind: &str, message: &str) -> bool {
    if matches!(kind, "context_length_exceeded" | "exceed_context_size_error" | "request_too_large") || status == 413 {
        return true;
    }
    let message = message.to_ascii_lowercase();
    let phrases = [
        "prompt is too long",
        "exceed context limit",
        "maximum context length",
        "context length exceeded",
        "exceeds the available context",
        "context window",
        "context size",
        "input is too long",
    ];
    status == 400 && phrases.iter().any(|phrase| message.contains(phrase))
}

fn is_unknown_model(status: u16, kind: &str, message: &str, model: &str) -> bool {
    let named = !model.is_empty() && message.contains(model);
    let message = message.to_ascii_lowercase();
    kind == "model_not_found"
        || (status == 404 && (kind == "not_found_error" || named || message.contains("model")))
        || (status == 400 && named && (message.contains("not exist") || message.contains("not found")))
}

fn advice(origin: &Origin<'_>) -> String {
    let variable = match origin.settings.kind {
        ProviderKind::Anthropic => env::ANTHROPIC_API_KEY,
        ProviderKind::OpenAi => env::OPENAI_API_KEY,
    };
    let place = match origin.provider {
        "anthropic" | "openai" => format!("{variable}, or `api_key_file` in its section of the configuration"),
        _ => format!("`api_key_file` or `api_key_env` in the section [providers.{}]", origin.provider),
    };
    match origin.settings.api_key {
        Some(_) => format!("check {place}, and start the host again"),
        None => format!("it was asked without a key: set {place}, and start the host again"),
    }
}

/// When the provider wants to be asked again: in milliseconds, in seconds, or at a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let text = text("retry-after")?;
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        // A clock that is wrong by hours makes a date worthless; the longest pause is limited where it is taken.
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
