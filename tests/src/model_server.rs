//! A server that answers as the real services do, streams and all, and plays a script: over Anthropic's Messages and over
//! chat completions. It misbehaves where it is told to.
//!
//! The script has the format of the scripted model; expectations in it are not looked at.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

/// What it is told to do wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status, these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Ends the stream after so many frames.
    Break(usize),
    /// Sends so many frames and then nothing more.
    Stall(usize),
    /// Says in the middle of the stream that it has too much to do.
    Overloaded,
    /// Stops at the limit on its output, within its last call.
    OutputLimit,
}

/// One answer.
#[derive(Clone, Debug, Default)]
struct Turn {
    say: String,
    calls: Vec<(String, Value)>,
}

#[derive(Default)]
struct Play {
    turns: Vec<Turn>,
    next: usize,
    faults: VecDeque<Fault>,
    /// Most bytes of a conversation that fit.
    context: Option<usize>,
    requests: Vec<Value>,
    keys: Vec<String>,
}

/// The server. Dropping it ends it.
pub struct ModelServer {
    /// Where it listens.
    pub address: SocketAddr,
    play: Arc<Mutex<Play>>,
    _end: oneshot::Sender<()>,
}

impl ModelServer {
    /// A server on a free port that plays `script`.
    pub async fn playing(script: &str) -> Result<Self> {
        Self::listen(script, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// A server that plays `script` at `address`.
    pub async fn listen(script: &str, address: SocketAddr) -> Result<Self> {
        let play = Arc::new(Mutex::new(Play { turns: turns(script)?, ..Play::default() }));
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/messages", post(messages))
            .route("/v1/models", get(models))
            .fallback(page)
            .with_state(Arc::clone(&play));
        let listener = tokio::net::TcpListener::bind(address).await.context("listen for the model")?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let serve = axum::serve(listener, router);
            tokio::select! { _ = serve => {}, _ = ended => {} }
        });
        Ok(Self { address, play, _end: end })
    }

    /// Base URL for chat completions.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Base URL for Messages.
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What to do wrong with the next requests, one each.
    pub fn fail_with(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// From now on conversations of more bytes are refused.
    pub fn set_context(&self, bytes: usize) {
        self.lock().context = Some(bytes);
    }

    /// Bodies of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.lock().requests.clone()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) -> Result<()> {
        let come = async {
            while self.lock().requests.len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::client::PATIENCE, come)
            .await
            .with_context(|| format!("{count} requests never came"))
    }

    /// Keys that came with the requests so far.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn turns(script: &str) -> Result<Vec<Turn>> {
    let script: toml::Table = script.parse().context("the script")?;
    let turns = script.get("turn").and_then(toml::Value::as_array).context("the script has no [[turn]]")?;
    let turn = |turn: &toml::Value| -> Result<Turn> {
        let turn = serde_json::to_value(turn)?;
        let calls = turn["call"].as_array().into_iter().flatten();
        let calls = calls.map(|call| (call["tool"].as_str().unwrap_or("").to_owned(), call["arguments"].clone()));
        Ok(Turn { say: turn["say"].as_str().unwrap_or("").to_owned(), calls: calls.collect() })
    };
    turns.iter().map(turn).collect()
}

type Shared = State<Arc<Mutex<Play>>>;

async fn models() -> impl IntoResponse {
    axum::Json(json!({ "object": "list", "data": [{ "id": "stand-in", "object": "model" }] }))
}

/// What a web server says for a path that is no API.
async fn page(uri: Uri) -> impl IntoResponse {
    let page = format!("<!DOCTYPE html><html><body><h1>Nothing at {}</h1></body></html>", uri.path());
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/html")], page)
}

async fn chat(state: Shared, headers: HeaderMap, body: axum::Json<Value>) -> Response {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    answer(&state.0, &body.0, key.trim_start_matches("Bearer "), chat_frames)
}

async fn messages(state: Shared, headers: HeaderMap, body: axum::Json<Value>) -> Response {
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok()).unwrap_or("");
    answer(&state.0, &body.0, key, message_frames)
}

fn answer(
    play: &Mutex<Play>,
    request: &Value,
    key: &str,
    frames: fn(&Turn, Option<&Fault>) -> Vec<String>,
) -> Response {
    let mut play = play.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    play.requests.push(request.clone());
    play.keys.push(key.to_owned());
    if request["model"] != "stand-in" {
        let message = format!("The model `{}` does not exist", request["model"].as_str().unwrap_or(""));
        return error(404, &[], &json!({ "error": { "message": message, "code": "model_not_found" } }).to_string());
    }
    let fault = play.faults.pop_front();
    if let Some(Fault::Status(status, headers, body)) = &fault {
        return error(*status, headers, body);
    }
    let size = request["messages"].to_string().len();
    if play.context.is_some_and(|most| size > most) {
        let message =
            format!("This model's maximum context length is {} bytes, not {size}.", play.context.unwrap_or(0));
        let code = "context_length_exceeded";
        return error(400, &[], &json!({ "error": { "message": message, "code": code } }).to_string());
    }
    // Who brings no tools wants a summary.
    let summary = Turn { say: "SUMMARY: the work so far.".into(), calls: Vec::new() };
    let wants_tools = request["tools"].is_array();
    let turn = if wants_tools { play.turns.get(play.next).cloned().unwrap_or_default() } else { summary };
    if wants_tools && fault.is_none() {
        play.next += 1;
    }
    let mut frames = frames(&turn, fault.as_ref());
    let stalls = matches!(fault, Some(Fault::Stall(_)));
    if let Some(Fault::Break(count) | Fault::Stall(count)) = fault {
        frames.truncate(count);
    }
    let frames = tokio_stream::iter(frames.into_iter().map(|frame| Ok::<_, Infallible>(Bytes::from(frame))));
    let body = match stalls {
        true => Body::from_stream(frames.chain(tokio_stream::pending())),
        // A pause now and then: pieces arrive as they do from a model.
        false => Body::from_stream(frames.throttle(Duration::from_millis(1))),
    };
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

fn error(status: u16, headers: &[(&'static str, String)], body: &str) -> Response {
    let kind = if body.starts_with('<') { "text/html" } else { "application/json" };
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(body.to_owned())).unwrap_or_default()
}

/// A text in pieces, as models send it.
fn pieces(text: &str) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(7).map(|piece| piece.iter().collect()).collect()
}

fn chat_frames(turn: &Turn, fault: Option<&Fault>) -> Vec<String> {
    let frame = |value: Value| format!("data: {value}\n\n");
    let delta = |delta: Value| frame(json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] }));
    let mut frames = vec![delta(json!({ "role": "assistant", "content": "" }))];
    frames.extend(pieces(&turn.say).into_iter().map(|piece| delta(json!({ "content": piece }))));
    if matches!(fault, Some(Fault::Overloaded)) {
        frames.push(frame(json!({ "error": { "message": "Overloaded", "type": "server_error" } })));
        return frames;
    }
    for (index, (tool, arguments)) in turn.calls.iter().enumerate() {
        let id = format!("call_{index}");
        let function = json!({ "name": tool, "arguments": "" });
        let call = json!({ "index": index, "id": id, "type": "function", "function": function });
        frames.push(delta(json!({ "tool_calls": [call] })));
        for piece in pieces(&arguments.to_string()) {
            let call = json!({ "index": index, "function": { "arguments": piece } });
            frames.push(delta(json!({ "tool_calls": [call] })));
        }
    }
    let reason = match fault {
        Some(Fault::OutputLimit) => "length",
        _ if turn.calls.is_empty() => "stop",
        _ => "tool_calls",
    };
    if matches!(fault, Some(Fault::OutputLimit)) && !turn.calls.is_empty() {
        frames.pop();
    }
    frames.push(frame(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })));
    frames.push(frame(json!({ "choices": [], "usage": { "prompt_tokens": 100, "completion_tokens": 10 } })));
    frames.push("data: [DONE]\n\n".into());
    frames
}

fn message_frames(turn: &Turn, fault: Option<&Fault>) -> Vec<String> {
    let frame = |kind: &str, mut value: Value| {
        value["type"] = kind.into();
        format!("event: {kind}\ndata: {value}\n\n")
    };
    let usage = json!({ "input_tokens": 100, "output_tokens": 1 });
    let mut frames = vec![frame("message_start", json!({ "message": { "usage": usage } })), frame("ping", json!({}))];
    let mut index = 0;
    if !turn.say.is_empty() {
        frames
            .push(frame("content_block_start", json!({ "index": 0, "content_block": { "type": "text", "text": "" } })));
        for piece in pieces(&turn.say) {
            let delta = json!({ "type": "text_delta", "text": piece });
            frames.push(frame("content_block_delta", json!({ "index": 0, "delta": delta })));
        }
        frames.push(frame("content_block_stop", json!({ "index": 0 })));
        index += 1;
    }
    if matches!(fault, Some(Fault::Overloaded)) {
        let error = json!({ "type": "overloaded_error", "message": "Overloaded" });
        frames.push(frame("error", json!({ "error": error })));
        return frames;
    }
    for (tool, arguments) in &turn.calls {
        let block = json!({ "type": "tool_use", "id": format!("toolu_{index}"), "name": tool, "input": {} });
        frames.push(frame("content_block_start", json!({ "index": index, "content_block": block })));
        for piece in pieces(&arguments.to_string()) {
            let delta = json!({ "type": "input_json_delta", "partial_json": piece });
            frames.push(frame("content_block_delta", json!({ "index": index, "delta": delta })));
        }
        frames.push(frame("content_block_stop", json!({ "index": index })));
        index += 1;
    }
    let reason = match fault {
        Some(Fault::OutputLimit) => "max_tokens",
        _ if turn.calls.is_empty() => "end_turn",
        _ => "tool_use",
    };
    if matches!(fault, Some(Fault::OutputLimit)) && !turn.calls.is_empty() {
        frames.pop();
    }
    let delta = json!({ "delta": { "stop_reason": reason }, "usage": { "output_tokens": 10 } });
    frames.push(frame("message_delta", delta));
    frames.push(frame("message_stop", json!({})));
    frames
}
