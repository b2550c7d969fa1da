//! A session as a person reads it.

use ostler_protocol::{Delta, Event};
use serde_json::{Value, json};

use crate::cli::terminal::Paint;
use crate::cli::transcript::Transcript;

const TURN: &str = "trn_01jd3kq4v5w6x7y8z9a0b1c2d3";
const PROMPT: &str = "pro_01jd3kq4v5w6x7y8z9a0b1c2d3";
const DECISION: &str = "dec_01jd3kq4v5w6x7y8z9a0b1c2d3";
const PULL: &str = "pr_01jd3kq4v5w6x7y8z9a0b1c2d3";

fn call(number: u32) -> String {
    format!("call_01jd3kq4v5w6x7y8z9a0b1c2d{number}")
}

fn read(value: &Value, seq: u64) -> Event {
    let mut value = value.clone();
    value["seq"] = seq.into();
    value["at_ms"] = 0.into();
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn render(bodies: &[Value]) -> String {
    let mut transcript = Transcript::new(Paint { enabled: false }, false);
    (1..).zip(bodies).map(|(seq, body)| transcript.event(&read(body, seq))).collect()
}

fn responded(step: u32, text: &str, calls: &[(u32, &str, Value)]) -> Value {
    let calls: Vec<Value> = calls
        .iter()
        .map(|(number, tool, arguments)| json!({"call": call(*number), "tool": tool, "arguments": arguments}))
        .collect();
    json!({"type": "model_responded", "turn": TURN, "step": step, "text": text, "calls": calls, "first_token_ms": 3})
}

fn decided(number: u32, verdict: &str, reasons: Value) -> Value {
    json!({"type": "decided", "decision": DECISION, "hook": "tool.execute.before", "call": call(number),
           "verdict": verdict, "reasons": reasons, "digest": ""})
}

fn started(number: u32, tool: &str, arguments: Value) -> Value {
    json!({"type": "tool_started", "call": call(number), "tool": tool, "arguments": arguments, "decision": DECISION})
}

fn finished(number: u32, outcome: &str, output: &str, exit: Option<i32>) -> Value {
    json!({"type": "tool_finished", "call": call(number), "outcome": outcome, "output": output, "blob": null,
           "exit_status": exit, "took_ms": 1234})
}

fn policy(text: &str) -> Value {
    json!([{"plugin": "policy", "text": text}])
}

#[test]
fn a_whole_session() {
    let ada = json!({"name": "Ada Example", "email": "ada@example.org"});
    let long: String = (1..=40).map(|number| format!("line {number}\n")).collect();
    let bodies = [
        json!({"type": "session_created", "session": "ses_01jd3kq4v5w6x7y8z9a0b1c2d3", "repository": "demo",
               "base_branch": "main", "base_commit": "1234567890abcdef1234567890abcdef12345678",
               "branch": "ostler/01jd3kq4v5", "author": ada, "model": "scripted/demo", "version": 1}),
        json!({"type": "prompt_submitted", "prompt": PROMPT, "text": "Make the test pass.\nKeep it small.", "author": ada}),
        json!({"type": "workspace_requested"}),
        json!({"type": "turn_started", "turn": TURN, "prompt": PROMPT}),
        json!({"type": "workspace_ready", "took_ms": 312, "restored": false}),
        json!({"type": "context_added", "source": "AGENTS.md", "text": "a\nb\n"}),
        json!({"type": "model_requested", "turn": TURN, "step": 1, "model": "scripted/demo"}),
        responded(1, "I look at the code first.", &[(1, "read_file", json!({"path": "src/add.py"}))]),
        decided(1, "pass", json!([])),
        started(1, "read_file", json!({"path": "src/add.py"})),
        finished(1, "done", "def add(a, b):\n\treturn a - b\n", None),
        responded(2, "", &[(2, "shell", json!({"command": "pytest -q"}))]),
        started(2, "shell", json!({"command": "pytest -q"})),
        json!({"type": "tool_finished", "call": call(2), "outcome": "done", "output": long, "exit_status": 1, "took_ms": 64_000,
               "blob": {"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 123_456, "truncated": false}}),
        responded(3, "Let me ask the internet.", &[(3, "shell", json!({"command": "curl http://example.org"}))]),
        decided(3, "deny", policy("no network tools here")),
        finished(3, "denied", "denied by policy", None),
        responded(4, "Then so.", &[(4, "shell", json!({"command": "pip install x"}))]),
        decided(4, "rewrite", policy("the lock file counts")),
        started(4, "shell", json!({"command": "pip install --require-hashes -r lock.txt"})),
        finished(4, "done", "ok \u{1b}[31mred\u{1b}[0m", Some(0)),
        json!({"type": "a_kind_of_later", "anything": 1}),
        responded(5, "Done.\n", &[]),
        json!({"type": "turn_finished", "turn": TURN, "outcome": {"outcome": "done"}}),
        json!({"type": "branch_pushed", "branch": "ostler/01jd3kq4v5", "commit": "abcdef1234567890abcdef1234567890abcdef12"}),
        json!({"type": "pull_request_opened", "pull_request": PULL, "number": 1, "title": "Make the test pass",
               "url": "http://127.0.0.1:7878/v1/pull-requests/1", "decision": DECISION}),
        json!({"type": "prompt_submitted", "prompt": PROMPT, "text": "Again", "author": {"name": "Bob", "email": "b@x"}}),
        json!({"type": "turn_finished", "turn": TURN, "outcome": {"outcome": "failed", "code": "model_failed", "message": "script_exhausted: …"}}),
        json!({"type": "pull_request_updated", "pull_request": PULL, "number": 1, "decision": DECISION,
               "commit": "abcdef1234567890abcdef1234567890abcdef12", "url": "http://127.0.0.1:7878/v1/pull-requests/1"}),
        json!({"type": "publish_skipped", "reason": "no change"}),
        json!({"type": "publish_skipped", "reason": "the hook said no", "failure": "denied"}),
        json!({"type": "workspace_lost", "reason": "out of memory"}),
        json!({"type": "notice", "text": "the image is old"}),
    ];
    insta::assert_snapshot!(render(&bodies));
}

#[test]
fn every_outcome_of_a_tool_has_its_words() {
    let mut text = String::new();
    for outcome in ["done", "failed", "denied", "stopped", "timed_out", "output_limit", "unknown"] {
        text.push_str(&render(&[started(1, "shell", json!({"command": "x\ny"})), finished(1, outcome, "", None)]));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_a_sandbox_does_on_the_network_has_its_words() {
    let decided = |host: &str, port: Option<u16>, verdict: &str, why: &str, times: u64| json!({"type": "egress_decided", "host": host, "port": port, "protocol": "tls", "verdict": verdict, "why": why, "times": times});
    let text = render(&[
        decided("static.crates.io", Some(443), "allowed", "preset cargo", 1),
        decided("static.crates.io", Some(443), "allowed", "preset cargo", 12),
        decided("a\u{1b}[31mb.example", None, "refused", "no rule allows this host", 1),
        decided("example.org", Some(22), "refused", "no rule for this host has this port", 3),
        decided("example.org", Some(443), "failed", "the name could not be resolved", 1),
        json!({"type": "egress_traffic", "host": "static.crates.io", "port": 443, "connections": 2, "bytes_up": 1840, "bytes_down": 913408}),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn what_was_shown_live_is_not_shown_again() {
    let mut transcript = Transcript::new(Paint { enabled: false }, true);
    let said = |text: &str| json!({"type": "model_text", "turn": TURN, "step": 1, "text": text});
    let wrote = |text: &str| json!({"type": "tool_output", "call": call(1), "text": text});
    let mut text = String::new();
    let mut delta = |transcript: &mut Transcript, value: Value| {
        let delta: Delta = serde_json::from_value(value).unwrap();
        text.push_str(&transcript.delta(&delta));
        text.push('|');
    };
    delta(&mut transcript, said("I look "));
    delta(&mut transcript, said("at it"));
    let event = read(&responded(1, "I look at it now.", &[(1, "shell", json!({"command": "make"}))]), 1);
    let mut rest = transcript.event(&event);
    rest.push_str(&transcript.event(&read(&started(1, "shell", json!({"command": "make"})), 2)));
    let mut delta = |transcript: &mut Transcript, value: Value| {
        let delta: Delta = serde_json::from_value(value).unwrap();
        rest.push_str(&transcript.delta(&delta));
        rest.push('|');
    };
    delta(&mut transcript, wrote("one\ntw"));
    delta(&mut transcript, wrote("o\nthree"));
    rest.push_str(&transcript.event(&read(&finished(1, "done", "one\ntwo\nthree\nfour", Some(0)), 3)));
    insta::assert_snapshot!(text + &rest);
}

#[test]
fn text_of_which_pieces_were_lost_is_shown_whole() {
    let mut transcript = Transcript::new(Paint { enabled: false }, true);
    let delta: Delta =
        serde_json::from_value(json!({"type": "model_text", "turn": TURN, "step": 1, "text": "middle"})).unwrap();
    let mut text = transcript.delta(&delta);
    text.push_str(&transcript.event(&read(&responded(1, "start middle end", &[]), 1)));
    assert_eq!(text, "middle\nstart middle end\n\n");
}

#[test]
fn without_a_watcher_deltas_say_nothing() {
    let mut transcript = Transcript::new(Paint { enabled: false }, false);
    let delta: Delta =
        serde_json::from_value(json!({"type": "model_text", "turn": TURN, "step": 1, "text": "x"})).unwrap();
    assert_eq!(transcript.delta(&delta), "");
}

#[test]
fn colour_marks_and_never_says() {
    let mut transcript = Transcript::new(Paint { enabled: true }, false);
    let text = transcript.event(&read(&finished(1, "done", "", Some(2)), 1));
    assert!(text.contains("\u{1b}[") && text.contains("✗ exit 2"), "{text:?}");
}
