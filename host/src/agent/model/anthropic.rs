//! Anthropic's Messages: how a request is written and its stream is read.
//!
//! The shapes are those of <https://docs.anthropic.com/en/api/messages> and `messages-streaming`, version 2023-06-01.
//! What is not known in a stream is passed over; what is missing is taken for absent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Request;
use super::answer::{Answer, Ended};
use super::decode::{Decoder, Told, WireError, number, string};
use super::turns::{Turn, turns};
use crate::sse::Frame;

/// Version of the API, sent with every request.
pub(super) const VERSION: &str = "2023-06-01";

/// Output limit of a model whose own is not configured: the API insists on one, and every model of the last years takes
/// this one.
const MAX_TOKENS: u32 = 8192;

/// The body of a request.
pub(super) fn body(request: &Request, model: &str, max_output_tokens: Option<u32>) -> Value {
    // What does not change from one request to the next is marked to be kept by the provider: tools, system prompt and
    // the conversation so far.
    let kept = json!({ "type": "ephemeral" });
    let mut tools: Vec<Value> = request
        .tools
        .iter()
        .map(|tool| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters }))
        .collect();
    if let Some(last) = tools.last_mut() {
        last["cache_control"] = kept.clone();
    }
    let mut messages: Vec<Value> = turns(&request.messages).iter().map(message).collect();
    if let Some(last) = messages.last_mut().and_then(|last| last["content"].as_array_mut()?.last_mut()) {
        last["cache_control"] = kept.clone();
    }
    let mut body = json!({
        "model": model,
        "max_tokens": max_output_tokens.unwrap_or(MAX_TOKENS),
        "stream": true,
        "system": [{ "type": "text", "text": request.system, "cache_control": kept }],
        "messages": messages,
    });
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools);
    }
    body
}

fn message(turn: &Turn) -> Value {
    match turn {
        Turn::User { results, texts } => {
            let results = results.iter().map(|result| {
                json!({
                    "type": "tool_result",
                    "tool_use_id": result.call.to_string(),
                    "content": result.text,
                    "is_error": result.is_error,
                })
            });
            let texts = texts.iter().map(|text| json!({ "type": "text", "text": text }));
            json!({ "role": "user", "content": results.chain(texts).collect::<Vec<_>>() })
        }
        Turn::Assistant { text, calls } => {
            let text = (!text.is_empty()).then(|| json!({ "type": "text", "text": text }));
            let calls = calls.iter().map(|call| {
                // Arguments that were no JSON: the API takes objects only.
                let input = match &call.arguments {
                    Value::Object(_) => call.arguments.clone(),
                    other => json!({ "malformed": other }),
                };
                json!({ "type": "tool_use", "id": call.call.to_string(), "name": call.tool, "input": input })
            });
            json!({ "role": "assistant", "content": text.into_iter().chain(calls).collect::<Vec<_>>() })
        }
    }
}

/// Reads a stream of Messages.
#[derive(Default)]
pub(super) struct Stream {
    answer: Answer,
    /// Kinds of the blocks that are not closed, by position.
    open: BTreeMap<u64, Block>,
    stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    Text,
    Call,
    Other,
}

impl Decoder for Stream {
    fn frame(&mut self, frame: &Frame) -> Result<Told, WireError> {
        let data: Value = serde_json::from_str(&frame.data).map_err(|_| WireError::not_json(&frame.data))?;
        let kind = data["type"].as_str().unwrap_or(&frame.event);
        match kind {
            "message_start" => self.usage(&data["message"]["usage"]),
            "content_block_start" => return self.block_started(&data),
            "content_block_delta" => return self.block_delta(&data),
            "content_block_stop" => {
                self.open.remove(&number(&data["index"]).unwrap_or(0));
            }
            "message_delta" => {
                self.usage(&data["usage"]);
                if let Some(reason) = string(&data["delta"]["stop_reason"]) {
                    self.answer.ended = Some(ended(reason));
                }
            }
            "message_stop" => {
                self.stopped = true;
                return Ok(Told::End);
            }
            "error" => return Err(WireError::of_provider(&data)),
            // `ping`, and what later versions add.
            _ => {}
        }
        Ok(Told::Nothing)
    }

    fn finish(mut self: Box<Self>) -> Answer {
        // A block that was not closed is half a block, whatever else the stream said.
        if !self.stopped || self.open.values().any(|block| *block == Block::Call) {
            self.answer.ended = self.answer.ended.filter(|ended| *ended == Ended::OutputLimit);
        }
        self.answer
    }
}

impl Stream {
    fn block_started(&mut self, data: &Value) -> Result<Told, WireError> {
        let index = number(&data["index"]).unwrap_or(0);
        let block = &data["content_block"];
        match block["type"].as_str() {
            Some("tool_use") => {
                self.open.insert(index, Block::Call);
                let (id, name) = (string(&block["id"]).unwrap_or(""), string(&block["name"]).unwrap_or(""));
                self.answer.begin_call(index, id, name)?;
                // Some gateways send the whole input at once.
                if block["input"].as_object().is_some_and(|input| !input.is_empty()) {
                    self.answer.arguments(index, &block["input"].to_string())?;
                }
                Ok(Told::Sign)
            }
            Some("text") => {
                self.open.insert(index, Block::Text);
                self.text(block["text"].as_str().unwrap_or(""))
            }
            _ => {
                self.open.insert(index, Block::Other);
                Ok(Told::Nothing)
            }
        }
    }

    fn block_delta(&mut self, data: &Value) -> Result<Told, WireError> {
        let index = number(&data["index"]).unwrap_or(0);
        let delta = &data["delta"];
        match delta["type"].as_str() {
            Some("text_delta") => self.text(delta["text"].as_str().unwrap_or("")),
            Some("input_json_delta") if self.open.get(&index) == Some(&Block::Call) => {
                self.answer.arguments(index, delta["partial_json"].as_str().unwrap_or(""))?;
                Ok(Told::Nothing)
            }
            _ => Ok(Told::Nothing),
        }
    }

    fn text(&mut self, piece: &str) -> Result<Told, WireError> {
        if piece.is_empty() {
            return Ok(Told::Nothing);
        }
        self.answer.text(piece)?;
        Ok(Told::Text(piece.to_owned()))
    }

    fn usage(&mut self, usage: &Value) {
        // Each piece says all that is known so far; a gateway may leave any of them out.
        let cached = number(&usage["cache_read_input_tokens"]);
        let written = number(&usage["cache_creation_input_tokens"]);
        let fresh = number(&usage["input_tokens"]);
        let known = &mut self.answer.usage;
        if let Some(fresh) = fresh {
            let whole = fresh.saturating_add(cached.unwrap_or(0)).saturating_add(written.unwrap_or(0));
            known.input_tokens = Some(whole.max(known.input_tokens.unwrap_or(0)));
        }
        known.cached_input_tokens = cached.or(known.cached_input_tokens);
        known.output_tokens = number(&usage["output_tokens"]).or(known.output_tokens);
    }
}

fn ended(reason: &str) -> Ended {
    match reason {
        "max_tokens" => Ended::OutputLimit,
        "model_context_window_exceeded" => Ended::ContextFull,
        "refusal" => Ended::Declined("refusal".into()),
        _ => Ended::Finished,
    }
}
