//! OpenAI's chat completions: how a request is written and its stream is read.
//!
//! The shapes are those of <https://platform.openai.com/docs/api-reference/chat>, and what the servers that speak the same
//! make of it: calls without a position, or all at position 0, arguments as an object, usage beside the last choice or
//! within it, no `[DONE]`, a whole answer in place of a stream. What is not known is passed over.

use serde_json::{Value, json};

use super::Request;
use super::answer::{Answer, Ended};
use super::decode::{Decoder, Told, WireError, number, string};
use super::turns::{Turn, turns};
use crate::sse::Frame;

/// How the limit on the output is called: OpenAI's newer models know only the second name, many servers only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitName {
    MaxTokens,
    MaxCompletionTokens,
}

/// The body of a request.
pub(super) fn body(request: &Request, model: &str, limit: Option<(LimitName, u32)>) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": request.system })];
    for turn in turns(&request.messages) {
        match turn {
            Turn::User { results, texts } => {
                messages.extend(results.iter().map(
                    |result| json!({ "role": "tool", "tool_call_id": result.call.to_string(), "content": result.text }),
                ));
                if !texts.is_empty() {
                    messages.push(json!({ "role": "user", "content": texts.join("\n\n") }));
                }
            }
            Turn::Assistant { text, calls } => messages.push(assistant(&text, &calls)),
        }
    }
    let mut body = json!({
        "model": model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "messages": messages,
    });
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let function = json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters });
            json!({ "type": "function", "function": function })
        });
        body["tools"] = tools.collect();
    }
    match limit {
        Some((LimitName::MaxTokens, tokens)) => body["max_tokens"] = tokens.into(),
        Some((LimitName::MaxCompletionTokens, tokens)) => body["max_completion_tokens"] = tokens.into(),
        None => {}
    }
    body
}

fn assistant(text: &str, calls: &[ostler_protocol::event::ToolCall]) -> Value {
    let content = if text.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content });
    if !calls.is_empty() {
        let calls = calls.iter().map(|call| {
            // The API wants a text that holds JSON; one that was none goes back as the model wrote it.
            let arguments = call.arguments.as_str().map_or_else(|| call.arguments.to_string(), str::to_owned);
            let function = json!({ "name": call.tool, "arguments": arguments });
            json!({ "id": call.call.to_string(), "type": "function", "function": function })
        });
        message["tool_calls"] = calls.collect();
    }
    message
}

/// Reads a stream of chat completions.
#[derive(Default)]
pub(super) struct Stream {
    answer: Answer,
    refusal: String,
}

impl Decoder for Stream {
    fn frame(&mut self, frame: &Frame) -> Result<Told, WireError> {
        if frame.data.trim() == "[DONE]" {
            return Ok(Told::End);
        }
        let data: Value = serde_json::from_str(&frame.data).map_err(|_| WireError::not_json(&frame.data))?;
        if frame.event == "error" || !data["error"].is_null() {
            return Err(WireError::of_provider(&data));
        }
        let choice = &data["choices"][0];
        for usage in [&data["usage"], &data["x_groq"]["usage"], &choice["usage"]] {
            self.usage(usage);
        }
        // A whole answer has a message where a stream has deltas.
        let delta = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        let mut told = self.text(delta)?;
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call)?;
            if told == Told::Nothing {
                told = Told::Sign;
            }
        }
        if let Some(reason) = string(&choice["finish_reason"]) {
            self.answer.ended = Some(ended(reason));
        }
        Ok(told)
    }

    fn finish(mut self: Box<Self>) -> Answer {
        if !self.refusal.is_empty() && self.answer.ended.is_some() {
            self.answer.ended = Some(Ended::Declined(super::decode::quote(&self.refusal)));
        }
        self.answer
    }
}

impl Stream {
    fn text(&mut self, delta: &Value) -> Result<Told, WireError> {
        if let Some(refusal) = string(&delta["refusal"]) {
            self.refusal.push_str(refusal);
        }
        let piece = match &delta["content"] {
            Value::String(text) => text.clone(),
            // Some servers send typed parts; those that are no text (such as thoughts) are not part of the answer.
            Value::Array(parts) => {
                parts.iter().filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str()).collect()
            }
            _ => String::new(),
        };
        if piece.is_empty() {
            return Ok(Told::Nothing);
        }
        self.answer.text(&piece)?;
        Ok(Told::Text(piece))
    }

    fn call(&mut self, call: &Value) -> Result<(), WireError> {
        let id = string(&call["id"]).unwrap_or("");
        let name = string(&call["function"]["name"]);
        let piece = match &call["function"]["arguments"] {
            Value::String(piece) => piece.clone(),
            whole @ Value::Object(_) => whole.to_string(),
            _ => String::new(),
        };
        let last = self.answer.last_index();
        let index = match number(&call["index"]) {
            Some(index) => index,
            // Without a position, a name with an id of its own is the next call, everything else goes on with the last.
            None if name.is_some() && last.is_none_or(|last| self.begins(last, id, &piece)) => {
                last.map_or(0, |last| last.saturating_add(1))
            }
            None => last.unwrap_or(0),
        };
        if let Some(name) = name
            && self.begins(index, id, &piece)
        {
            self.answer.begin_call(index, id, name)?;
        }
        if !piece.is_empty() {
            self.answer.arguments(index, &piece)?;
        }
        Ok(())
    }

    /// Whether a piece with a name begins another call, even at a position that has one: some servers give all of them
    /// position 0, some repeat the name with each piece.
    fn begins(&self, index: u64, id: &str, piece: &str) -> bool {
        let Some(open) = self.answer.call_at(index) else { return true };
        if id.is_empty() || open.id.is_empty() { piece.starts_with('{') && open.is_whole() } else { open.id != id }
    }

    fn usage(&mut self, usage: &Value) {
        let known = &mut self.answer.usage;
        known.input_tokens = number(&usage["prompt_tokens"]).or(known.input_tokens);
        known.output_tokens = number(&usage["completion_tokens"]).or(known.output_tokens);
        known.cached_input_tokens =
            number(&usage["prompt_tokens_details"]["cached_tokens"]).or(known.cached_input_tokens);
    }
}

fn ended(reason: &str) -> Ended {
    match reason {
        "stop" | "tool_calls" | "function_call" | "eos" | "end_turn" => Ended::Finished,
        "length" | "max_tokens" | "model_length" => Ended::OutputLimit,
        "content_filter" => Ended::Declined("its provider's content filter stopped it".into()),
        // What servers say where something went wrong, such as `error` or `abort`: half an answer is none.
        other => Ended::Failed(super::decode::quote(other)),
    }
}
