//! A client of the HTTP API, as plain as it gets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ostler_protocol::api::{PromptAccepted, SessionView};
use ostler_protocol::{Event, EventBody, SessionId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract;

/// Longest time that a test waits for something to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the log.
const LOOK: Duration = Duration::from_millis(10);

/// What each tool said, in the order in which they ended.
#[must_use]
pub fn tool_outputs(events: &[Event]) -> Vec<String> {
    let outputs = events.iter().filter_map(|event| match &event.body {
        EventBody::ToolFinished { output, .. } => Some(output.clone()),
        _ => None,
    });
    outputs.collect()
}

/// A client of one host.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Address of the host, without a slash at the end.
    pub url: String,
    /// Its token.
    pub token: String,
}

impl Client {
    /// A client of the host at `url`.
    #[must_use]
    pub fn new(url: &str, token: &str) -> Self {
        // reqwest wants a choice of cryptography even where there is none to do; a second choice changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { http: reqwest::Client::new(), url: url.to_owned(), token: token.to_owned() }
    }

    /// Sends a request and returns status and body. An answer that the document of the API does not allow is an error.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value)> {
        self.send_with(method, path, &[], body).await
    }

    /// [`Self::send`] with an idempotency key.
    pub async fn post_keyed(&self, path: &str, key: &str, body: &Value) -> Result<(StatusCode, Value)> {
        self.send_with(Method::POST, path, &[("idempotency-key", key)], Some(body.clone())).await
    }

    /// [`Self::send`] with more headers.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.timeout(PATIENCE).send().await?;
        let status = response.status();
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        contract::document()?.judge(method.as_str(), path, status.as_u16(), &kind, &body)?;
        Ok((status, body))
    }

    /// Sends a request that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, body) = self.send(method, path, body).await?;
        if !status.is_success() {
            bail!("{path} answered {status}: {body}");
        }
        Ok(body)
    }

    /// Makes a session as the test person.
    pub async fn create_session(&self, repository: &str) -> Result<SessionView> {
        let author = json!({ "name": "Test Person", "email": "person@example.org" });
        let body = json!({ "repository": repository, "author": author });
        Ok(serde_json::from_value(self.ok(Method::POST, "/v1/sessions", Some(body)).await?)?)
    }

    /// Sends a prompt.
    pub async fn prompt(&self, session: SessionId, text: &str) -> Result<PromptAccepted> {
        let path = format!("/v1/sessions/{session}/prompts");
        Ok(serde_json::from_value(self.ok(Method::POST, &path, Some(json!({ "text": text }))).await?)?)
    }

    /// Stops the turn under way.
    pub async fn stop(&self, session: SessionId) -> Result<SessionView> {
        let path = format!("/v1/sessions/{session}/stop");
        Ok(serde_json::from_value(self.ok(Method::POST, &path, None).await?)?)
    }

    /// One session.
    pub async fn session(&self, session: SessionId) -> Result<SessionView> {
        Ok(serde_json::from_value(self.ok(Method::GET, &format!("/v1/sessions/{session}"), None).await?)?)
    }

    /// Every event of a session.
    pub async fn events(&self, session: SessionId) -> Result<Vec<Event>> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let path = format!("/v1/sessions/{session}/events?format=json&after={after}");
            let page = self.ok(Method::GET, &path, None).await?;
            let page: Vec<Event> = serde_json::from_value(page["events"].clone()).context("a page of events")?;
            if page.is_empty() {
                return Ok(events);
            }
            events.extend(page);
        }
    }

    /// Waits until an event satisfies `wanted` and returns it with everything before it.
    pub async fn wait_for(
        &self,
        session: SessionId,
        what: &str,
        wanted: impl Fn(&EventBody) -> bool,
    ) -> Result<Vec<Event>> {
        let wanted = |event: &Event| wanted(&event.body);
        let mut events = self.wait_until(session, what, |events| events.iter().any(wanted)).await?;
        let position = events.iter().position(wanted).unwrap_or(events.len());
        events.truncate(position + 1);
        Ok(events)
    }

    /// Waits until an event after the one numbered `after` satisfies `wanted` and returns the whole log.
    pub async fn wait_for_after(
        &self,
        session: SessionId,
        after: u64,
        what: &str,
        wanted: impl Fn(&EventBody) -> bool,
    ) -> Result<Vec<Event>> {
        let wanted = |event: &Event| event.seq > after && wanted(&event.body);
        self.wait_until(session, what, |events| events.iter().any(wanted)).await
    }

    async fn wait_until(&self, session: SessionId, what: &str, is_so: impl Fn(&[Event]) -> bool) -> Result<Vec<Event>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events(session).await?;
            if is_so(&events) {
                return Ok(events);
            }
            if Instant::now() > deadline {
                bail!("no {what} within {PATIENCE:?}; the log is {events:#?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a tool runs and returns the log up to there.
    pub async fn wait_for_running_tool(&self, session: SessionId) -> Result<Vec<Event>> {
        self.wait_for(session, "running tool", |body| matches!(body, EventBody::ToolStarted { .. })).await
    }

    /// Waits until the session has nothing to do and returns its log.
    pub async fn wait_until_idle(&self, session: SessionId) -> Result<Vec<Event>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.session(session).await?;
            if view.status != ostler_protocol::api::SessionStatus::Working {
                return self.events(session).await;
            }
            if Instant::now() > deadline {
                bail!("still working after {PATIENCE:?}; the log is {:#?}", self.events(session).await?);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
