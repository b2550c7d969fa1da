//! Streams as providers send them, read whole, cut anywhere, and broken off anywhere.

use serde_json::{Value, json};

use super::answer::Unusable;
use super::decode::{Decoder, Told, WireError};
use super::{Response, anthropic, openai};
use crate::sse::{Frame, Parser};
use ostler_protocol::event::{ModelStop, Usage};

const ANTHROPIC: [(&str, &str); 5] = [
    ("text", include_str!("streams/anthropic_text.sse")),
    ("tools", include_str!("streams/anthropic_tools.sse")),
    ("gateway", include_str!("streams/anthropic_gateway.sse")),
    ("max_tokens", include_str!("streams/anthropic_max_tokens.sse")),
    ("overloaded", include_str!("streams/anthropic_overloaded.sse")),
];

const OPENAI: [(&str, &str); 6] = [
    ("tools", include_str!("streams/openai_tools.sse")),
    ("same_index", include_str!("streams/openai_same_index.sse")),
    ("no_index", include_str!("streams/openai_no_index.sse")),
    ("usage_in_choice", include_str!("streams/openai_usage_in_choice.sse")),
    ("length", include_str!("streams/openai_length.sse")),
    ("error", include_str!("streams/openai_error.sse")),
];

/// How a decoder is made, and the streams that it reads, by name.
type Readable = (fn() -> Box<dyn Decoder>, Vec<(&'static str, &'static str)>);

fn decoders() -> [Readable; 2] {
    [
        (|| Box::new(anthropic::Stream::default()), ANTHROPIC.to_vec()),
        (|| Box::new(openai::Stream::default()), OPENAI.to_vec()),
    ]
}

/// What a stream becomes: the pieces of text that people see, and the answer.
fn read(mut decoder: Box<dyn Decoder>, pieces: &[&[u8]]) -> (String, Result<Response, WireError>) {
    let mut parser = Parser::default();
    let mut seen = String::new();
    for piece in pieces {
        parser.push(piece).unwrap();
        while let Some(frame) = parser.next_frame() {
            match decoder.frame(&frame) {
                Ok(Told::Text(text)) => seen.push_str(&text),
                Ok(Told::End) => return (seen, decoder.finish().finish().map_err(WireError::from)),
                Ok(Told::Nothing | Told::Sign) => {}
                Err(error) => return (seen, Err(error)),
            }
        }
    }
    (seen, decoder.finish().finish().map_err(WireError::from))
}

fn answer_of(stream: &str) -> Response {
    let of_anthropic = ANTHROPIC.iter().any(|(_, known)| *known == stream);
    let decoder = decoders()[usize::from(!of_anthropic)].0();
    read(decoder, &[stream.as_bytes()]).1.unwrap()
}

fn shell() -> (String, Value) {
    ("shell".into(), json!({ "command": "ls -a" }))
}

fn list() -> (String, Value) {
    ("list_files".into(), json!({}))
}

fn usage(input: u64, output: u64, cached: Option<u64>) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), cached_input_tokens: cached }
}

fn answer(text: &str, calls: Vec<(String, Value)>, usage: Usage) -> Response {
    Response { text: text.into(), calls, usage, ..Response::default() }
}

#[test]
fn anthropics_streams_become_answers() {
    let [text, tools, gateway, cut, _] = ANTHROPIC.map(|(_, stream)| stream);
    assert_eq!(answer_of(text), answer("Grüße, 世界!", vec![], usage(132, 15, Some(100))));
    assert_eq!(answer_of(tools), answer("I look.", vec![shell(), list()], usage(472, 89, None)));
    let ls = ("shell".to_owned(), json!({ "command": "ls" }));
    assert_eq!(answer_of(gateway), answer("", vec![ls], usage(31, 12, None)));
    let cut_off = Response { stop: ModelStop::OutputLimit, ..answer("Writing.", vec![], usage(9, 8192, None)) };
    assert_eq!(answer_of(cut), cut_off);
}

#[test]
fn streams_of_chat_completions_become_answers() {
    let [tools, same_index, no_index, in_choice, cut, _] = OPENAI.map(|(_, stream)| stream);
    assert_eq!(answer_of(tools), answer("I look.", vec![shell(), list()], usage(82, 17, Some(64))));
    assert_eq!(answer_of(same_index), answer("", vec![shell(), list()], Usage::default()));
    assert_eq!(answer_of(no_index), answer("I look.", vec![shell(), list()], Usage::default()));
    assert_eq!(answer_of(in_choice), answer("All done.", vec![], usage(5, 3, None)));
    let cut_off = Response { stop: ModelStop::OutputLimit, ..answer("Writing.", vec![], Usage::default()) };
    assert_eq!(answer_of(cut), cut_off, "a whole call of a cut answer is not run either");
}

#[test]
fn a_completion_in_one_piece_is_an_answer_too() {
    let mut decoder = openai::Stream::default();
    let frame = Frame { event: String::new(), data: include_str!("streams/openai_whole.json").into() };
    assert_eq!(decoder.frame(&frame), Ok(Told::Text("I look.".into())));
    let found = Box::new(decoder).finish().finish().unwrap();
    assert_eq!(found, answer("I look.", vec![shell()], usage(5, 3, None)));
}

#[test]
fn errors_within_a_stream_are_errors() {
    for (stream, kind, message) in
        [(ANTHROPIC[4].1, "overloaded_error", "Overloaded"), (OPENAI[5].1, "server_error", "The server had an error")]
    {
        let decoder = decoders()[usize::from(kind == "server_error")].0();
        let (seen, found) = read(decoder, &[stream.as_bytes()]);
        assert_eq!(found, Err(WireError::Provider { kind: kind.into(), message: message.into() }));
        assert_eq!(seen, "Let me");
    }
}

#[test]
fn it_does_not_matter_where_a_stream_is_cut_into_pieces() {
    for (decoder, streams) in decoders() {
        for (name, stream) in streams {
            let whole = read(decoder(), &[stream.as_bytes()]);
            for at in 1..stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                assert_eq!(read(decoder(), &[first, second]), whole, "{name} cut at {at}");
            }
        }
    }
}

/// The rule that matters most: whatever is missing at the end, no call of it is handed out.
#[test]
fn a_stream_that_breaks_off_anywhere_hands_out_no_call() {
    for (decoder, streams) in decoders() {
        for (name, stream) in streams {
            let whole = read(decoder(), &[stream.as_bytes()]).1;
            for at in 0..stream.len() {
                let found = read(decoder(), &[&stream.as_bytes()[..at]]).1;
                match found {
                    Err(_) => {}
                    // Nothing is missing but what says nothing: the end of the last line, `[DONE]`, the usage.
                    Ok(found) if found.stop == ModelStop::Finished => {
                        let whole = whole.as_ref().unwrap();
                        assert_eq!((&found.text, &found.calls), (&whole.text, &whole.calls), "{name} ends at {at}");
                    }
                    Ok(found) => assert_eq!(found.calls, [], "{name} ends at {at}"),
                }
            }
        }
    }
    let nothing = read(decoders()[0].0(), &[]).1;
    assert_eq!(nothing, Err(WireError::Unusable(Unusable::NoEnd)));
}

#[test]
fn half_an_answer_that_its_server_gave_up_on_is_none() {
    for reason in ["error", "abort", "insufficient_system_resource"] {
        let [tools, ..] = OPENAI.map(|(_, stream)| stream);
        let stream = tools.replace("\"finish_reason\":\"tool_calls\"", &format!("\"finish_reason\":\"{reason}\""));
        let found = read(decoders()[1].0(), &[stream.as_bytes()]).1;
        assert_eq!(found, Err(WireError::Unusable(Unusable::Failed(reason.into()))));
    }
    let [tools, ..] = OPENAI.map(|(_, stream)| stream);
    let cut = tools.replace("\"finish_reason\":\"tool_calls\"", "\"finish_reason\":\"model_length\"");
    let found = read(decoders()[1].0(), &[cut.as_bytes()]).1.unwrap();
    assert_eq!((found.calls.len(), found.stop), (0, ModelStop::OutputLimit));
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let garbage = [
        "data: not json\n\n",
        "data: {\"choices\": 7}\n\ndata: [1,2]\n\ndata: null\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":18446744073709551615,\"function\":{\"name\":\"x\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
        "event: content_block_delta\ndata: {\"index\":5,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n",
        "event: message_delta\ndata: {\"delta\":\"x\",\"usage\":[]}\n\n",
    ];
    for stream in garbage {
        for (decoder, _) in decoders() {
            let found = read(decoder(), &[stream.as_bytes()]).1;
            assert!(found.is_err(), "{stream} became {found:?}");
        }
    }
}
