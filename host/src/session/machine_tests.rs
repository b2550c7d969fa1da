//! The machine against scripts of inputs, and against random ones.

use std::collections::HashSet;

use ostler_protocol::DecisionId;
use ostler_protocol::api::SessionStatus;
use ostler_protocol::event::{ModelStop, Person, RequestKey, Summarizer, Usage};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::session::asking::MAX_STEPS;
use crate::session::state::{Answer, Compaction, Retry};

fn person() -> Person {
    Person { name: "Robin".into(), email: "robin@example.org".into() }
}

fn prompt(text: &str) -> Prompt {
    Prompt { id: PromptId::generate(), text: text.into(), author: person(), request: None }
}

fn call(tool: &str) -> ToolCall {
    ToolCall { call: CallId::generate(), tool: tool.into(), arguments: json!({}) }
}

fn decision(verdict: Verdict) -> ToolDecision {
    let reasons = vec![Reason { plugin: "policy".into(), text: "because".into() }];
    let (id, arguments, digest) = (DecisionId::generate(), json!({ "command": "true" }), "sha256:0".into());
    ToolDecision { id, verdict, reasons, arguments, digest, context: Vec::new() }
}

fn done(output: &str) -> ToolResult {
    ToolResult { exit_status: Some(0), ..ToolResult::not_run(ToolOutcome::Done, output) }
}

/// A state in which the first turn has asked the model.
fn asked() -> (State, TurnId, Vec<EventBody>) {
    let mut state = State::default();
    let first = prompt("fix it\nplease");
    let turn = turn_of(first.id);
    let mut log = state.step(Input::Prompt(first)).append;
    log.extend(state.step(Input::ContextLoaded { turn, decided: None, fragments: Vec::new() }).append);
    (state, turn, log)
}

fn answer(calls: Vec<ToolCall>, stop: ModelStop) -> Answer {
    Answer { text: "words".into(), calls, first_token_ms: 1, stop, usage: Usage::default() }
}

fn compaction(replaced: usize) -> Compaction {
    let (summary, by, reason) = ("so far".to_owned(), Summarizer::Model, "too long".to_owned());
    Compaction { replaced, summary, by, reason, tokens_before: 9, tokens_after: 5 }
}

fn responded(turn: TurnId, step: u32, calls: Vec<ToolCall>) -> Input {
    Input::ModelResponded { turn, step, answer: answer(calls, ModelStop::Finished) }
}

fn kinds(step: &Step) -> Vec<String> {
    let kind = |body: &EventBody| serde_json::to_value(body).unwrap()["type"].as_str().unwrap().to_owned();
    step.append.iter().map(kind).collect()
}

#[test]
fn the_first_prompt_starts_the_sandbox_and_the_context_together() {
    let mut state = State::default();
    let step = state.step(Input::Prompt(prompt("fix it\nplease")));
    assert_eq!(kinds(&step), ["prompt_submitted", "turn_started", "workspace_requested"]);
    assert!(matches!(step.acts[..], [Act::StartWorkspace, Act::LoadContext { .. }]));
    assert_eq!(state.title, "fix it");
}

#[test]
fn a_tool_waits_for_the_sandbox_and_runs_with_what_the_hooks_left() {
    let (mut state, turn, _) = asked();
    let wanted = call("shell");
    let id = wanted.call;
    let step = state.step(responded(turn, 1, vec![wanted]));
    assert!(matches!(step.acts[..], [Act::DecideTool { .. }]));
    let step = state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Rewrite) });
    assert_eq!((kinds(&step), step.acts.len()), (vec!["decided".to_owned()], 0));
    let step = state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    assert_eq!(kinds(&step), ["workspace_ready", "tool_started"]);
    let Act::RunTool { arguments, .. } = &step.acts[0] else { panic!("{:?}", step.acts) };
    assert_eq!(arguments, &json!({ "command": "true" }));
}

#[test]
fn a_denied_tool_never_runs_and_the_model_hears_why() {
    for verdict in [Verdict::Deny, Verdict::Ask, Verdict::Defer] {
        let (mut state, turn, _) = asked();
        state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
        let wanted = call("shell");
        let id = wanted.call;
        state.step(responded(turn, 1, vec![wanted]));
        let step = state.step(Input::ToolDecided { turn, call: id, decision: decision(verdict) });
        assert_eq!(kinds(&step), ["decided", "tool_finished", "model_requested"]);
        assert!(matches!(step.acts[..], [Act::RequestModel { step: 2, .. }]));
        let Some(Message::Tool { output, .. }) = state.conversation.last() else { panic!() };
        assert_eq!(output, "denied: because (policy)");
    }
}

#[test]
fn a_halt_ends_the_turn_and_answers_every_open_call() {
    let (mut state, turn, _) = asked();
    let (first, second) = (call("shell"), call("shell"));
    let id = first.call;
    state.step(responded(turn, 1, vec![first, second]));
    let step = state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Halt) });
    assert_eq!(kinds(&step), ["decided", "tool_finished", "tool_finished", "turn_finished"]);
    assert_eq!(state.status(), SessionStatus::Failed);
}

#[test]
fn a_turn_that_ends_before_there_was_a_workspace_has_nothing_to_publish() {
    let (mut state, turn, _) = asked();
    let step = state.step(responded(turn, 1, Vec::new()));
    assert_eq!(kinds(&step), ["model_responded", "turn_finished", "publish_skipped"]);
    assert_eq!((step.acts.len(), state.status()), (0, SessionStatus::Idle));
    let step = state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    assert_eq!((kinds(&step), step.acts.len()), (vec!["workspace_ready".to_owned()], 0));
}

#[test]
fn an_answer_without_calls_ends_the_turn_and_publishes() {
    let (mut state, turn, _) = asked();
    state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    let step = state.step(responded(turn, 1, Vec::new()));
    assert_eq!(kinds(&step), ["model_responded", "turn_finished"]);
    assert!(matches!(step.acts[..], [Act::Publish { .. }]));
    assert_eq!(state.status(), SessionStatus::Working, "publishing is work");
    let skipped = EventBody::PublishSkipped { reason: "nothing".into(), failure: None };
    state.step(Input::Published { turn, events: vec![skipped] });
    assert_eq!(state.status(), SessionStatus::Idle);
}

#[test]
fn a_second_prompt_waits_for_the_turn_and_its_publishing() {
    let (mut state, turn, _) = asked();
    state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    let second = prompt("and then");
    assert_eq!(kinds(&state.step(Input::Prompt(second.clone()))), ["prompt_submitted"]);
    assert_eq!(kinds(&state.step(responded(turn, 1, Vec::new()))), ["model_responded", "turn_finished"]);
    let skipped = EventBody::PublishSkipped { reason: "nothing".into(), failure: None };
    let step = state.step(Input::Published { turn, events: vec![skipped] });
    assert_eq!(kinds(&step), ["publish_skipped", "turn_started", "model_requested"]);
    assert_eq!(state.turn.as_ref().unwrap().id, turn_of(second.id));
}

#[test]
fn stop_while_the_model_talks_ends_the_turn_and_keeps_the_queue() {
    let (mut state, turn, _) = asked();
    state.step(Input::Prompt(prompt("next")));
    let step = state.step(Input::Stop);
    assert_eq!(kinds(&step)[..2], ["stop_requested", "turn_finished"]);
    assert_eq!(step.acts[0], Act::Cancel);
    assert_eq!(kinds(&step)[2..], ["turn_started", "model_requested"]);
    assert!(state.step(responded(turn, 1, Vec::new())).append.is_empty(), "a late answer changes nothing");
}

#[test]
fn stop_while_a_tool_runs_waits_for_what_it_left() {
    let (mut state, turn, _) = asked();
    state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    let (first, second) = (call("shell"), call("shell"));
    let id = first.call;
    state.step(responded(turn, 1, vec![first, second]));
    state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Pass) });
    assert_eq!(kinds(&state.step(Input::Stop)), ["stop_requested"]);
    let result = ToolResult::not_run(ToolOutcome::Stopped, "partial");
    let step = state.step(Input::ToolFinished { turn, call: id, result });
    assert_eq!(kinds(&step), ["tool_finished", "tool_finished", "turn_finished"]);
    assert_eq!(state.status(), SessionStatus::Idle);
}

#[test]
fn a_sandbox_that_cannot_be_made_fails_the_turn_with_the_reason() {
    let (mut state, _, _) = asked();
    let step =
        state.step(Input::WorkspaceLost { code: ErrorCode::SandboxFailed, reason: "no room".into(), cut_off: None });
    assert_eq!(kinds(&step), ["workspace_lost", "turn_finished"]);
    let Some(EventBody::TurnFinished { outcome: TurnOutcome::Failed { message, .. }, .. }) = step.append.last() else {
        panic!()
    };
    assert!(message.contains("no room"));
}

#[test]
fn after_a_crash_a_running_tool_is_adopted_or_declared_unknown() {
    let (mut state, turn, mut log) = asked();
    log.extend(state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None }).append);
    let wanted = call("shell");
    let id = wanted.call;
    log.extend(state.step(responded(turn, 1, vec![wanted])).append);
    log.extend(state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Pass) }).append);
    let restart = || {
        let mut state = State::default();
        log.iter().for_each(|body| state.apply(body));
        state
    };
    let step = restart().step(Input::Recovered { workspace: Workspace::Ready });
    assert!(matches!(step.acts[..], [Act::AdoptTool { .. }]) && step.append.is_empty(), "{step:?}");
    let step = restart().step(Input::Recovered { workspace: Workspace::None });
    assert_eq!(kinds(&step), ["workspace_lost", "tool_finished", "model_requested"]);
    assert!(matches!(step.append[1], EventBody::ToolFinished { outcome: ToolOutcome::Unknown, .. }));
}

#[test]
fn a_stop_that_a_crash_interrupted_is_said_again() {
    let (mut state, turn, mut log) = asked();
    log.extend(state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None }).append);
    let wanted = call("shell");
    let id = wanted.call;
    log.extend(state.step(responded(turn, 1, vec![wanted])).append);
    log.extend(state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Pass) }).append);
    log.extend(state.step(Input::Stop).append);
    let mut restarted = State::default();
    log.iter().for_each(|body| restarted.apply(body));
    let step = restarted.step(Input::Recovered { workspace: Workspace::Ready });
    assert!(matches!(step.acts[..], [Act::AdoptTool { .. }, Act::Cancel]), "{step:?}");
    assert_eq!(restarted.step(Input::Stop).acts, [Act::Cancel]);
}

#[test]
fn work_is_published_from_a_new_sandbox_where_the_old_one_is_gone() {
    let (mut state, turn, _) = asked();
    state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    state.step(Input::WorkspaceLost { code: ErrorCode::SandboxFailed, reason: "gone".into(), cut_off: None });
    let step = state.step(responded(turn, 1, Vec::new()));
    assert_eq!(kinds(&step), ["model_responded", "turn_finished", "workspace_requested"]);
    assert_eq!(step.acts, [Act::StartWorkspace]);
    let mut failing = state.clone();
    let step = state.step(Input::WorkspaceReady { took_ms: 5, restored: true, cloned: None });
    assert!(matches!(step.acts[..], [Act::Publish { .. }]), "{step:?}");
    let step = failing.step(Input::WorkspaceLost { code: ErrorCode::NoSpace, reason: "no room".into(), cut_off: None });
    assert_eq!(kinds(&step), ["workspace_lost", "publish_skipped"]);
    assert_eq!(failing.status(), SessionStatus::Idle);
}

#[test]
fn a_title_is_plain_text() {
    let mut state = State::default();
    state.step(Input::Prompt(prompt("\u{1b}[31m \u{202e}red\u{0}\nmore")));
    assert_eq!(state.title, "[31m red");
    let mut state = State::default();
    state.step(Input::Prompt(prompt("\u{1b}\u{7}")));
    assert_eq!(state.title, "Work");
}

#[test]
fn a_turn_that_never_ends_is_ended() {
    let (mut state, turn, _) = asked();
    state.step(Input::WorkspaceReady { took_ms: 5, restored: false, cloned: None });
    for number in 1..=MAX_STEPS {
        let wanted = call("shell");
        let id = wanted.call;
        state.step(responded(turn, number, vec![wanted]));
        state.step(Input::ToolDecided { turn, call: id, decision: decision(Verdict::Deny) });
    }
    assert_eq!(state.status(), SessionStatus::Failed);
}

/// What a random world does next; the indices choose among what fits.
#[derive(Clone, Debug)]
enum Move {
    Prompt,
    Stop,
    Context,
    Model { calls: usize },
    ModelFails { retry: bool },
    Cut,
    Full,
    Compacted,
    Decide(u8),
    Finish,
    Ready,
    Lost,
    Published,
    Crash { sandbox_lives: bool },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => Just(Move::Prompt),
        1 => Just(Move::Stop),
        3 => Just(Move::Context),
        5 => (0usize..3).prop_map(|calls| Move::Model { calls }),
        2 => any::<bool>().prop_map(|retry| Move::ModelFails { retry }),
        1 => Just(Move::Cut),
        2 => Just(Move::Full),
        2 => Just(Move::Compacted),
        5 => (0u8..6).prop_map(Move::Decide),
        5 => Just(Move::Finish),
        3 => Just(Move::Ready),
        1 => Just(Move::Lost),
        3 => Just(Move::Published),
        1 => any::<bool>().prop_map(|sandbox_lives| Move::Crash { sandbox_lives }),
    ];
    proptest::collection::vec(one, 1..80)
}

fn input_for(state: &State, next: &Move) -> Option<Input> {
    let turn = state.turn.as_ref();
    let open = turn.and_then(|turn| turn.calls.front().map(|call| (turn.id, call.call)));
    Some(match next {
        Move::Prompt => Input::Prompt(prompt("p")),
        Move::Stop => Input::Stop,
        Move::Context => Input::ContextLoaded { turn: turn?.id, decided: None, fragments: Vec::new() },
        Move::Model { calls } => responded(turn?.id, turn?.step, (0..*calls).map(|_| call("shell")).collect()),
        Move::ModelFails { retry } => {
            let (turn, step, code) = (turn?.id, turn?.step, ErrorCode::ModelFailed);
            let retry = retry.then_some(Retry { of: 3, after_ms: 1 });
            Input::ModelFailed { turn, step, code, message: "no".into(), retry }
        }
        Move::Cut => {
            let answer = answer(Vec::new(), ModelStop::OutputLimit);
            Input::ModelResponded { turn: turn?.id, step: turn?.step, answer }
        }
        Move::Full => Input::ContextFull { turn: turn?.id, step: turn?.step, reason: "too long".into() },
        Move::Compacted => {
            let replaced = state.conversation.iter().position(|said| matches!(said, Message::Assistant { .. }))?;
            Input::Compacted { turn: turn?.id, step: turn?.step, compaction: compaction(replaced) }
        }
        Move::Decide(verdict) => {
            let all = [Verdict::Pass, Verdict::Rewrite, Verdict::Ask, Verdict::Defer, Verdict::Deny, Verdict::Halt];
            let (turn, call) = open?;
            Input::ToolDecided { turn, call, decision: decision(all[usize::from(*verdict)]) }
        }
        Move::Finish => {
            let (turn, call) = open.filter(|_| turn.is_some_and(|turn| turn.stage == Stage::Running))?;
            Input::ToolFinished { turn, call, result: done("ok") }
        }
        Move::Ready if state.workspace == Workspace::Starting => {
            Input::WorkspaceReady { took_ms: 1, restored: false, cloned: None }
        }
        Move::Lost => Input::WorkspaceLost { code: ErrorCode::SandboxFailed, reason: "gone".into(), cut_off: None },
        Move::Published => {
            let skipped = EventBody::PublishSkipped { reason: "nothing".into(), failure: None };
            Input::Published { turn: state.publishing.as_ref()?.0, events: vec![skipped] }
        }
        Move::Ready | Move::Crash { .. } => return None,
    })
}

/// What every log must satisfy.
fn check_log(log: &[EventBody]) {
    let mut asked = HashSet::new();
    let mut allowed = HashSet::new();
    let mut started = HashSet::new();
    let mut finished = HashSet::new();
    let mut open_turn = None;
    for body in log {
        match body {
            EventBody::TurnStarted { turn, .. } => assert_eq!(open_turn.replace(*turn), None, "two turns at once"),
            EventBody::TurnFinished { turn, .. } => assert_eq!(open_turn.take(), Some(*turn)),
            EventBody::ModelResponded { calls, .. } => asked.extend(calls.iter().map(|call| call.call)),
            EventBody::Decided { decision, verdict: Verdict::Pass | Verdict::Rewrite, .. } => {
                allowed.insert(*decision);
            }
            EventBody::ToolStarted { call, decision, .. } => {
                assert!(asked.contains(call) && started.insert(*call), "a call runs once and only if asked for");
                assert!(allowed.remove(decision), "no effect without a decision of its own");
            }
            EventBody::ToolFinished { call, .. } => {
                assert!(asked.contains(call) && finished.insert(*call), "a call has one result");
            }
            _ => {}
        }
    }
    if open_turn.is_none() {
        assert_eq!(asked, finished, "no call is left without a result when its turn ends");
    }
}

proptest! {
    #[test]
    fn no_order_of_things_breaks_the_log(moves in moves()) {
        let mut state = State::default();
        let mut log = Vec::new();
        for next in &moves {
            if let Move::Crash { sandbox_lives } = next {
                let mut restarted = State::default();
                log.iter().for_each(|body| restarted.apply(body));
                state = restarted;
                let lives = *sandbox_lives && state.workspace == Workspace::Ready;
                let workspace = if lives { Workspace::Ready } else { Workspace::None };
                log.extend(state.step(Input::Recovered { workspace }).append);
            } else if let Some(input) = input_for(&state, next) {
                log.extend(state.step(input).append);
            }
            check_log(&log);
        }
        let mut folded = State::default();
        log.iter().for_each(|body| folded.apply(body));
        prop_assert_eq!(folded.status(), state.status());
        prop_assert_eq!(folded.conversation, state.conversation);
        prop_assert_eq!(folded.queue, state.queue);
        prop_assert_eq!(folded.workspace, state.workspace);
    }

    #[test]
    fn an_idle_session_always_takes_the_next_prompt(moves in moves()) {
        let mut state = State::default();
        for next in &moves {
            if let Some(input) = input_for(&state, next) {
                state.step(input);
            }
        }
        if state.turn.is_none() && state.publishing.is_none() {
            prop_assert!(state.queue.is_empty(), "nothing waits behind nothing");
            let step = state.step(Input::Prompt(prompt("next")));
            prop_assert!(kinds(&step).contains(&"turn_started".to_owned()));
        }
    }
}

#[test]
fn a_keyed_prompt_is_remembered_with_its_answer_and_only_the_last_ones_are() {
    let mut log = Vec::new();
    let mut state = State::default();
    let count = ostler_protocol::api::REMEMBERED_KEYS + 2;
    let mut ids = Vec::new();
    for number in 0..count {
        let request = RequestKey { key: format!("key-{number}"), digest: format!("sha256:{number}") };
        let prompt = Prompt { request: Some(request), ..prompt("go") };
        ids.push(prompt.id);
        log.extend(state.step(Input::Prompt(prompt)).append);
    }
    let mut folded = State::default();
    for body in &log {
        folded.apply(body);
    }
    assert_eq!(folded.keyed, state.keyed);
    assert_eq!(state.keyed("key-1"), None, "the oldest are forgotten");
    for number in [2, count - 1] {
        let keyed = state.keyed(&format!("key-{number}")).unwrap();
        assert_eq!((keyed.accepted.prompt, keyed.request.digest.as_str()), (ids[number], &*format!("sha256:{number}")));
        let event = &log[usize::try_from(keyed.accepted.seq).unwrap() - 1];
        assert!(matches!(event, EventBody::PromptSubmitted { prompt, .. } if *prompt == ids[number]), "{event:?}");
    }
}
