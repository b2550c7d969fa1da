//! A provider of models: one request over HTTP, from its first byte to its last.
//!
//! ```text
//!  request ─► status? ─► kind of content? ─► frames ─► decoder ─► whole answer
//!               │ error      │ web page         │ silent, endless, broken
//!               └────────────┴──────────────────┴─► an error that says whether asking again may help
//! ```
//!
//! Owns deadlines and limits of one attempt. Does not repeat anything; the session does, where people see it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use reqwest::{RequestBuilder, Response as HttpResponse, header};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::decode::{Decoder, Told, WireError, quote};
use super::openai::LimitName;
use super::refusal::{self, Origin};
use super::{Limits, Model, ModelError, Request, Response, anthropic, openai};
use crate::config::{ModelSettings, ProviderKind, ProviderSettings};
use crate::sse::{Frame, Parser};

/// Largest answer, in bytes as they come: many times what any model writes at once.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Most of an error's body that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// Time for the body of an error.
const ERROR_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// Models that are named to somebody who asked for one that is not there.
const MAX_KNOWN: usize = 8;

/// A provider of models.
pub struct Provider {
    name: String,
    settings: ProviderSettings,
    http: reqwest::Client,
}

impl Provider {
    /// A provider under its name. Makes no connection.
    pub fn new(name: &str, settings: ProviderSettings) -> Result<Self, ModelError> {
        let secure = settings.base_url.starts_with("https:");
        let builder = if secure { crate::http::trusting() } else { crate::http::plain() };
        // A server on this machine is nobody's business but ours.
        let builder = if is_loopback(&settings.base_url) { builder.no_proxy() } else { builder };
        let http = builder.connect_timeout(std::time::Duration::from_secs(10)).build().map_err(ModelError::Client)?;
        Ok(Self { name: name.to_owned(), settings, http })
    }

    /// One of its models. Whether it has it is known when it is asked.
    pub fn model(self: &Arc<Self>, model: &str) -> ProviderModel {
        let settings = self.settings.models.get(model).copied().unwrap_or_default();
        let (name, model) = (format!("{}/{model}", self.name), model.to_owned());
        ProviderModel { name, model, settings, provider: Arc::clone(self) }
    }

    /// Names of the models that the provider says it has.
    pub async fn models(&self) -> Result<Vec<String>, ModelError> {
        let address = match self.settings.kind {
            ProviderKind::Anthropic => self.address("/v1/models?limit=1000"),
            ProviderKind::OpenAi => self.address("/models"),
        };
        let origin = self.origin("", &address);
        let response = self.send(self.authorized(self.http.get(&address)), &origin).await?;
        let body = self.read(response).await?;
        let list: Value = serde_json::from_slice(&body).map_err(|_| origin.not_an_api("something that is no JSON"))?;
        let models = list["data"].as_array().or_else(|| list["models"].as_array());
        let models = models.ok_or_else(|| origin.not_an_api("JSON without a list of models"))?;
        let name = |model: &Value| Some(model["id"].as_str().or_else(|| model["name"].as_str())?.to_owned());
        Ok(models.iter().filter_map(name).collect())
    }

    /// The provider's clock, where it answers with a date; what else it answers does not matter.
    pub async fn clock(&self) -> Option<SystemTime> {
        let address = self.address("/");
        let response = timeout(self.settings.idle_timeout, self.http.head(&address).send()).await.ok()?.ok()?;
        let date = response.headers().get(header::DATE)?.to_str().ok()?;
        httpdate::parse_http_date(date).ok()
    }

    fn address(&self, path: &str) -> String {
        let base = self.settings.base_url.trim_end_matches('/');
        // People give the address of Anthropic's API with and without its version.
        let base = match self.settings.kind {
            ProviderKind::Anthropic => base.strip_suffix("/v1").unwrap_or(base),
            ProviderKind::OpenAi => base,
        };
        format!("{base}{path}")
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let key = self.settings.api_key.as_ref();
        match (self.settings.kind, key) {
            (ProviderKind::Anthropic, key) => {
                let request = request.header("anthropic-version", anthropic::VERSION);
                match key {
                    Some(key) => request.header("x-api-key", key.reveal()),
                    None => request,
                }
            }
            (ProviderKind::OpenAi, Some(key)) => request.bearer_auth(key.reveal()),
            (ProviderKind::OpenAi, None) => request,
        }
    }

    fn origin<'a>(&'a self, model: &'a str, address: &'a str) -> Origin<'a> {
        Origin { provider: &self.name, model, address, settings: &self.settings }
    }

    /// Sends a request and waits for the beginning of a proper answer.
    async fn send(&self, request: RequestBuilder, origin: &Origin<'_>) -> Result<HttpResponse, ModelError> {
        let sent = timeout(self.settings.idle_timeout, request.send()).await;
        let response = match sent {
            Err(_) => return Err(self.silent("")),
            Ok(Err(error)) => {
                let (provider, address) = (self.name.clone(), origin.address.to_owned());
                return Err(ModelError::Unreachable { provider, address, source: error.without_url() });
            }
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read_error(response).await;
        Err(refusal::of(origin, status, &headers, &body))
    }

    /// A whole body.
    async fn read(&self, response: HttpResponse) -> Result<Vec<u8>, ModelError> {
        let reading = async {
            let mut bytes = Vec::new();
            let mut stream = response.bytes_stream();
            while let Some(piece) = timeout(self.settings.idle_timeout, stream.next())
                .await
                .map_err(|_| self.silent(" in the middle of an answer"))?
            {
                let piece = piece.map_err(|error| self.broken(crate::telemetry::chain(&error.without_url())))?;
                bytes.extend_from_slice(&piece);
                if bytes.len() > MAX_ANSWER {
                    return Err(self.endless(format!("is longer than {MAX_ANSWER} bytes")));
                }
            }
            Ok(bytes)
        };
        timeout(self.settings.answer_timeout, reading).await.map_err(|_| self.too_long())?
    }

    /// The beginning of the body of an error, as much of it as comes in time.
    async fn read_error(&self, response: HttpResponse) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        let reading = async {
            while bytes.len() < MAX_ERROR
                && let Some(Ok(piece)) = stream.next().await
            {
                bytes.extend_from_slice(&piece);
            }
        };
        // What came until then tells enough.
        let _ = timeout(ERROR_TIME, reading).await;
        bytes.truncate(MAX_ERROR);
        bytes
    }

    fn too_long(&self) -> ModelError {
        let seconds = self.settings.answer_timeout.as_secs_f32();
        self.endless(format!("had no end after {seconds} s"))
    }

    fn silent(&self, while_doing: &'static str) -> ModelError {
        let seconds = self.settings.idle_timeout.as_secs_f32();
        ModelError::Silent { provider: self.name.clone(), seconds, while_doing }
    }

    fn broken(&self, why: impl Into<String>) -> ModelError {
        ModelError::Broken { provider: self.name.clone(), why: why.into() }
    }

    fn endless(&self, limit: String) -> ModelError {
        ModelError::Endless { provider: self.name.clone(), limit }
    }
}

/// A model of a provider.
pub struct ProviderModel {
    name: String,
    model: String,
    settings: ModelSettings,
    provider: Arc<Provider>,
}

#[async_trait]
impl Model for ProviderModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        let ModelSettings { context_tokens, max_output_tokens } = self.settings;
        Limits { context_tokens, max_output_tokens, max_attempts: self.provider.settings.max_attempts }
    }

    async fn respond(&self, request: Request, deltas: mpsc::Sender<String>) -> Result<Response, ModelError> {
        let address = self.provider.address(self.path());
        let origin = self.provider.origin(&self.model, &address);
        let (body, decoder) = self.exchange(&request);
        let started = Instant::now();
        let request = self
            .provider
            .authorized(self.provider.http.post(&address).header(header::ACCEPT, "text/event-stream").json(&body));
        let response = match self.provider.send(request, &origin).await {
            Ok(response) => response,
            Err(error) => return Err(self.with_known_models(error).await),
        };
        let mut reading = Reading { provider: &self.provider, origin, decoder, deltas, started, first_token_ms: None };
        reading.read(response).await?;
        let Reading { origin, decoder, first_token_ms, .. } = reading;
        let answer = decoder.finish().finish().map_err(|unusable| refusal::of_wire(&origin, unusable.into()))?;
        let first_token_ms = first_token_ms.unwrap_or_else(|| super::milliseconds(started.elapsed()));
        Ok(Response { first_token_ms, ..answer })
    }
}

impl ProviderModel {
    fn path(&self) -> &'static str {
        match self.provider.settings.kind {
            ProviderKind::Anthropic => "/v1/messages",
            ProviderKind::OpenAi => "/chat/completions",
        }
    }

    fn exchange(&self, request: &Request) -> (Value, Box<dyn Decoder>) {
        let max = self.settings.max_output_tokens;
        match self.provider.settings.kind {
            ProviderKind::Anthropic => {
                (anthropic::body(request, &self.model, max), Box::new(anthropic::Stream::default()))
            }
            ProviderKind::OpenAi => {
                let own = self.provider.settings.base_url == ProviderSettings::OPENAI;
                let name = if own { LimitName::MaxCompletionTokens } else { LimitName::MaxTokens };
                let limit = max.map(|max| (name, max));
                (openai::body(request, &self.model, limit), Box::new(openai::Stream::default()))
            }
        }
    }

    /// Somebody who asked for a model that is not there is told what is.
    async fn with_known_models(&self, error: ModelError) -> ModelError {
        let ModelError::NoSuchModel { provider, model, message, .. } = error else { return error };
        let known = match self.provider.models().await {
            Ok(mut names) if !names.is_empty() => {
                names.sort_by_key(|name| std::cmp::Reverse(common_prefix(name, &model)));
                let more = names.len().saturating_sub(MAX_KNOWN);
                names.truncate(MAX_KNOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("; it has: {}{more}", quote(&names.join(", ")))
            }
            _ => String::new(),
        };
        ModelError::NoSuchModel { provider, model, message, known }
    }
}

/// Whether an address is one of this machine's own.
fn is_loopback(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host = host.unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// The stream of one answer while it is read.
struct Reading<'a> {
    provider: &'a Provider,
    origin: Origin<'a>,
    decoder: Box<dyn Decoder>,
    deltas: mpsc::Sender<String>,
    started: Instant,
    first_token_ms: Option<u64>,
}

impl Reading<'_> {
    async fn read(&mut self, response: HttpResponse) -> Result<(), ModelError> {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match kind.as_str() {
            // Some gateways forget to say what they send.
            "text/event-stream" | "" | "text/plain" => self.frames(response).await,
            "application/json" => self.whole(response).await,
            "text/html" => Err(self.origin.not_an_api("a web page (text/html)")),
            other => Err(self.origin.not_an_api(&format!("`{}`", quote(other)))),
        }
    }

    /// An answer that came in one piece.
    async fn whole(&mut self, response: HttpResponse) -> Result<(), ModelError> {
        let body = self.provider.read(response).await?;
        let data = String::from_utf8_lossy(&body).into_owned();
        let known = serde_json::from_str::<Value>(&data).is_ok_and(|data| {
            // What the readers know what to do with.
            ["choices", "error"].iter().any(|field| !data[field].is_null())
        });
        if !known {
            return Err(self.origin.not_an_api(&format!("JSON that is no answer: {data}")));
        }
        self.take(&Frame { event: String::new(), data }).map(drop)
    }

    async fn frames(&mut self, response: HttpResponse) -> Result<(), ModelError> {
        let settings = &self.provider.settings;
        let deadline = tokio::time::Instant::now() + settings.answer_timeout;
        let mut parser = Parser::default();
        let mut stream = response.bytes_stream();
        let mut total = 0_usize;
        let mut frames = 0_usize;
        loop {
            let silence = tokio::time::Instant::now() + settings.idle_timeout;
            let piece = match tokio::time::timeout_at(silence.min(deadline), stream.next()).await {
                Err(_) if silence < deadline => return Err(self.provider.silent(" in the middle of an answer")),
                Err(_) => return Err(self.provider.too_long()),
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    return Err(self.provider.broken(crate::telemetry::chain(&error.without_url())));
                }
                Ok(Some(Ok(piece))) => piece,
            };
            total = total.saturating_add(piece.len());
            if total > MAX_ANSWER {
                return Err(self.provider.endless(format!("is longer than {MAX_ANSWER} bytes")));
            }
            // A timeout lets what is ready pass: a stream that always has more would never meet it.
            if tokio::time::Instant::now() >= deadline {
                return Err(self.provider.too_long());
            }
            parser.push(&piece).map_err(|error| self.provider.broken(error.to_string()))?;
            while let Some(frame) = parser.next_frame() {
                frames += 1;
                if self.take(&frame)? == Told::End {
                    return Ok(());
                }
            }
        }
        if frames == 0 {
            return Err(self.provider.broken("there was nothing in it"));
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> Result<Told, ModelError> {
        let told = self.decoder.frame(frame).map_err(|error: WireError| refusal::of_wire(&self.origin, error))?;
        if matches!(told, Told::Sign | Told::Text(_)) {
            let started = self.started;
            self.first_token_ms.get_or_insert_with(|| super::milliseconds(started.elapsed()));
        }
        if let Told::Text(piece) = &told {
            // A full queue means that nobody keeps up; the answer holds the whole text.
            let _ = self.deltas.try_send(piece.clone());
        }
        Ok(told)
    }
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
