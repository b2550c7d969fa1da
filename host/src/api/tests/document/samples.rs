//! One example of every event and delta, as it is on the wire.

use ostler_protocol::event::{
    Blob, CutOff, EgressProtocol, EgressVerdict, ModelStop, Reason, RequestKey, Summarizer, ToolCall, ToolOutcome,
    TurnOutcome, Usage, Verdict,
};
use ostler_protocol::processes::ServiceState;
use ostler_protocol::{CallId, DecisionId, Delta, ErrorCode, EventBody};
use serde_json::{Value, json};

use crate::api::document::examples::*;

const fn call() -> CallId {
    CallId::from_ulid(ulid(4))
}

const fn decision() -> DecisionId {
    DecisionId::from_ulid(ulid(6))
}

fn key() -> RequestKey {
    RequestKey { key: KEY.into(), digest: DIGEST.into() }
}

/// Every event, one of each type.
pub(super) fn events() -> Vec<Value> {
    let bodies = [beginning(), tools(), endings()].concat();
    bodies.into_iter().map(|body| serde_json::to_value(body).unwrap()).collect()
}

fn beginning() -> Vec<EventBody> {
    vec![
        EventBody::SessionCreated {
            session: session_id(),
            repository: "demo".into(),
            base_branch: "main".into(),
            base_commit: COMMIT.into(),
            branch: branch(),
            author: person(),
            model: "scripted/demo".into(),
            version: ostler_protocol::event::EVENT_VERSION,
            request: Some(key()),
        },
        EventBody::StopRequested,
        EventBody::PromptSubmitted {
            prompt: prompt_id(),
            text: submit_prompt().text,
            author: person(),
            request: Some(key()),
        },
        EventBody::WorkspaceRequested,
        EventBody::WorkspaceReady { took_ms: 31, restored: false },
        EventBody::WorkspaceLost { reason: "it did not outlive the host".into(), cut_off: None },
        EventBody::WorkspaceLost {
            reason: "the link to the guest is lost: the guest broke the protocol: an undecodable message".into(),
            cut_off: Some(CutOff::BrokeProtocol),
        },
        EventBody::TurnStarted { turn: turn_id(), prompt: prompt_id() },
        EventBody::ContextAdded { source: "AGENTS.md".into(), text: "Run `python3 check.py` to test.".into() },
        EventBody::ModelRequested { turn: turn_id(), step: 1, model: "scripted/demo".into() },
        EventBody::Unknown,
    ]
}

fn tools() -> Vec<EventBody> {
    let arguments = json!({ "command": "python3 check.py" });
    vec![
        EventBody::ModelResponded {
            turn: turn_id(),
            step: 1,
            text: "I run the tests.".into(),
            calls: vec![ToolCall {
                call: call(),
                tool: "shell".into(),
                arguments: json!({ "command": "python check.py" }),
            }],
            first_token_ms: 210,
            stop: ModelStop::Finished,
            usage: Usage { input_tokens: Some(2150), output_tokens: Some(48), cached_input_tokens: Some(1800) },
        },
        EventBody::ModelRetried {
            turn: turn_id(),
            step: 2,
            attempt: 1,
            of: 5,
            reason: "the provider `anthropic` failed (529): Overloaded".into(),
            after_ms: 1400,
        },
        EventBody::ContextCompacted {
            turn: turn_id(),
            replaced: 84,
            summary: "The tests are run with `python3 check.py`. VALUE was 1 and must be 2.".into(),
            by: Summarizer::Model,
            reason: "the conversation has about 170000 tokens, the model's context holds 200000".into(),
            tokens_before: 170_000,
            tokens_after: 41_000,
        },
        EventBody::Decided {
            decision: decision(),
            hook: "tool.execute.before".into(),
            call: Some(call()),
            verdict: Verdict::Rewrite,
            reasons: vec![Reason { plugin: "policy".into(), text: "there is only python3".into() }],
            digest: DIGEST.into(),
        },
        EventBody::ToolStarted { call: call(), tool: "shell".into(), arguments, decision: decision() },
        EventBody::ToolFinished {
            call: call(),
            outcome: ToolOutcome::Done,
            output: "FAILED: VALUE is 1\n".into(),
            blob: Some(Blob { digest: DIGEST.into(), bytes: 81_920, truncated: false }),
            exit_status: Some(1),
            took_ms: 46,
        },
    ]
}

fn endings() -> Vec<EventBody> {
    vec![
        EventBody::TurnFinished { turn: turn_id(), outcome: TurnOutcome::Done },
        EventBody::BranchPushed { branch: branch(), commit: COMMIT.into() },
        EventBody::PullRequestOpened {
            pull_request: pull_request_id(),
            number: 1,
            title: pull_request().title,
            url: pull_request().url,
            decision: decision(),
        },
        EventBody::PullRequestUpdated {
            pull_request: pull_request_id(),
            number: 1,
            commit: COMMIT.into(),
            url: pull_request().url,
            decision: decision(),
        },
        EventBody::PublishSkipped {
            reason: "the push did not end: the disk of the forge is full".into(),
            failure: Some(ErrorCode::NoSpace),
        },
        EventBody::ProcessStarted { process: "web".into(), command: "npm start".into(), by: person() },
        EventBody::ProcessEnded {
            process: "web".into(),
            run: "5v6w7x8y".into(),
            exit_status: 1,
            output: "Error: port 3000 is taken".into(),
        },
        EventBody::ServiceChanged {
            service: "database".into(),
            state: ServiceState::Restarting,
            why: Some("it ended with status 1; it is started again in 500ms (1 of 5)".into()),
            output: Some("FATAL: data directory is missing".into()),
            decision: None,
        },
        EventBody::ServicesRefused {
            reason: ".ostler/services.toml: service `web` has no `command`; say what it runs".into(),
        },
        EventBody::TerminalOpened { terminal: "main".into(), by: person() },
        EventBody::PreviewOpened { preview: "p3000-5f0c7b1e7d".into(), port: 3000 },
        EventBody::EgressDecided {
            host: "example.org".into(),
            port: Some(443),
            protocol: Some(EgressProtocol::Tls),
            verdict: EgressVerdict::Refused,
            why: "no rule allows this host".into(),
            times: 3,
        },
        EventBody::EgressTraffic {
            host: "static.crates.io".into(),
            port: 443,
            connections: 2,
            bytes_up: 1840,
            bytes_down: 913_408,
        },
        EventBody::Notice { text: "17 more decisions about the network, each of another kind".into() },
    ]
}

/// Every delta, one of each type.
pub(super) fn deltas() -> Vec<Value> {
    let output = Delta::ToolOutput { call: call(), text: "FAILED: VAL".into() };
    [delta(), output].into_iter().map(|delta| serde_json::to_value(delta).unwrap()).collect()
}
