//! Refusals as services and local servers word them.

use serde_json::json;

use super::*;
use crate::agent::model::Retry;
use crate::config::Secret;

fn refused(status: u16, headers: &[(&str, &str)], body: &str) -> ModelError {
    let mut settings = ProviderSettings::new(ProviderKind::OpenAi);
    settings.api_key = Some(Secret::new("sk-canary"));
    let origin = Origin {
        provider: "local",
        model: "small",
        address: "http://127.0.0.1:9/chat/completions",
        settings: &settings,
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        map.insert(name, value.parse().unwrap());
    }
    of(&origin, StatusCode::from_u16(status).unwrap(), &map, body.as_bytes())
}

/// What real services and local servers answer, and what becomes of it.
#[test]
fn every_refusal_is_told_apart() {
    let anthropic = |kind: &str, message: &str| {
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).to_string()
    };
    let openai = |message: &str, kind: &str, code: Option<&str>| {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
    };
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
    let cases = [
        (401, anthropic("authentication_error", "invalid x-api-key")),
        (401, openai("Incorrect API key provided: sk-canary.", "invalid_request_error", Some("invalid_api_key"))),
        (404, anthropic("not_found_error", "model: small")),
        (404, openai("The model `small` does not exist", "invalid_request_error", Some("model_not_found"))),
        (404, json!({"object": "error", "message": "The model `small` does not exist.", "code": 404}).to_string()),
        (404, json!({"error": "model 'small' not found"}).to_string()),
        (404, json!({"detail": "Not Found"}).to_string()),
        (404, "404 page not found".to_owned()),
        (404, page.to_owned()),
        (200 + 102, String::new()),
        (400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")),
        (
            400,
            openai(
                "Your input exceeds the context window of this model.",
                "invalid_request_error",
                Some("context_length_exceeded"),
            ),
        ),
        (
            400,
            json!({"object": "error", "message": "This model's maximum context length is 8192 tokens.", "code": 400})
                .to_string(),
        ),
        (
            400,
            json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds"}})
                .to_string(),
        ),
        (413, anthropic("request_too_large", "Request exceeds the maximum size")),
        (400, anthropic("invalid_request_error", "messages: at least one message is required")),
        (422, json!({"detail": [{"msg": "field required"}]}).to_string()),
        (402, openai("Insufficient Balance", "unknown_error", None)),
        (429, openai("You exceeded your current quota", "insufficient_quota", Some("insufficient_quota"))),
        (429, anthropic("rate_limit_error", "This request would exceed your rate limit")),
        (429, page.to_owned()),
        (500, openai("The server had an error", "server_error", None)),
        (502, page.to_owned()),
        (503, String::new()),
        (529, anthropic("overloaded_error", "Overloaded")),
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|(status, body)| {
            let error = refused(*status, &[], body);
            assert!(!error.to_string().contains("sk-canary"), "{error}");
            format!("{status} {:?}: {error}", error.retry())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_pause_is_the_one_that_the_provider_wants() {
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
    let past = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(3600));
    let pause = |name: &str, value: &str| match refused(429, &[(name, value)], "{}").retry() {
        Retry::After(pause) => Some(pause.as_secs_f64().ceil() as u64),
        Retry::Soon | Retry::No => None,
    };
    assert_eq!(pause("retry-after", "7"), Some(7));
    assert_eq!(pause("retry-after", "0.5"), Some(1));
    assert_eq!(pause("retry-after-ms", "1500"), Some(2));
    assert!(pause("retry-after", &soon).is_some_and(|pause| (88..=90).contains(&pause)));
    assert_eq!(pause("retry-after", &past), Some(0), "a clock that is an hour off asks again at once");
    for nonsense in ["soon", "-5", "NaN", "1e400", ""] {
        assert_eq!(pause("retry-after", nonsense), None, "{nonsense}");
    }
}

#[test]
fn what_a_stream_says_in_its_middle_is_told_apart_too() {
    let settings = ProviderSettings::new(ProviderKind::Anthropic);
    let origin = Origin { provider: "anthropic", model: "m", address: "", settings: &settings };
    let told = |kind: &str, message: &str| {
        of_wire(&origin, WireError::Provider { kind: kind.into(), message: message.into() }).retry()
    };
    assert_eq!(told("overloaded_error", "Overloaded"), Retry::Soon);
    assert_eq!(told("api_error", "Internal server error"), Retry::Soon);
    assert_eq!(told("invalid_request_error", "no"), Retry::No);
    let full = of_wire(&origin, WireError::Provider { kind: "error".into(), message: "prompt is too long".into() });
    assert!(matches!(full, ModelError::ContextFull { .. }));
}
