//! The machine between a question and its answer: attempts, summaries, cut answers.

use ostler_protocol::event::{Person, Summarizer, ToolCall, Usage};
use ostler_protocol::{CallId, PromptId};

use super::*;
use crate::agent::compaction;
use crate::agent::message::Message;
use crate::session::state::Prompt;

/// A state in which the first turn has asked the model.
fn asked() -> (State, TurnId) {
    let mut state = State::default();
    let author = Person { name: "Robin".into(), email: "robin@example.org".into() };
    let id = PromptId::generate();
    state.step(Input::Prompt(Prompt { id, text: "fix it".into(), author, request: None }));
    let turn = TurnId::from_ulid(id.ulid());
    state.step(Input::ContextLoaded { turn, decided: None, fragments: Vec::new() });
    (state, turn)
}

fn answer(stop: ModelStop, calls: Vec<ToolCall>, tokens: Option<u64>) -> Answer {
    let usage = Usage { input_tokens: tokens, output_tokens: tokens.map(|_| 10), cached_input_tokens: None };
    Answer { text: "words".into(), calls, first_token_ms: 1, stop, usage }
}

fn fails(turn: TurnId, step: u32, retry: Option<Retry>) -> Input {
    Input::ModelFailed { turn, step, code: ErrorCode::ModelFailed, message: "overloaded".into(), retry }
}

fn compacted(turn: TurnId, step: u32, replaced: usize) -> Input {
    let (summary, reason) = ("so far".to_owned(), "too long".to_owned());
    let by = Summarizer::Model;
    let compaction = Compaction { replaced, summary, by, reason, tokens_before: 9, tokens_after: 5 };
    Input::Compacted { turn, step, compaction }
}

const RETRY: Option<Retry> = Some(Retry { of: 3, after_ms: 40 });

#[test]
fn a_failed_attempt_is_an_event_and_the_next_one_has_a_number_of_its_own() {
    let (mut state, turn) = asked();
    let step = state.step(fails(turn, 1, RETRY));
    let retried =
        EventBody::ModelRetried { turn, step: 1, attempt: 1, of: 3, reason: "overloaded".into(), after_ms: 40 };
    assert_eq!(step.append, [retried, EventBody::ModelRequested { turn, step: 2, model: String::new() }]);
    assert_eq!(step.acts, [Act::RequestModel { turn, step: 2, after_ms: 40 }]);
    assert_eq!(state.step(fails(turn, 1, RETRY)), Step::default(), "a late report of the first attempt is dropped");
    state.step(fails(turn, 2, RETRY));
    let last = state.step(fails(turn, 3, RETRY));
    let failed = TurnOutcome::Failed { code: ErrorCode::ModelFailed, message: "overloaded (attempt 3)".into() };
    assert_eq!(last.append[0], EventBody::TurnFinished { turn, outcome: failed });
}

#[test]
fn an_answer_makes_the_next_attempts_count_from_the_beginning() {
    let (mut state, turn) = asked();
    state.step(fails(turn, 1, RETRY));
    state.step(fails(turn, 2, RETRY));
    state.step(Input::ModelResponded { turn, step: 3, answer: answer(ModelStop::OutputLimit, Vec::new(), None) });
    let again = state.step(fails(turn, 4, RETRY));
    assert!(matches!(again.append[0], EventBody::ModelRetried { attempt: 1, .. }), "{again:?}");
}

#[test]
fn attempts_are_counted_over_restarts() {
    let (mut state, turn) = asked();
    let mut log = state.step(fails(turn, 1, RETRY)).append;
    log.extend(state.step(fails(turn, 2, RETRY)).append);
    let (mut restarted, _) = asked();
    // The same turn as the log says.
    restarted.turn.as_mut().unwrap().id = turn;
    log.iter().for_each(|body| restarted.apply(body));
    let last = restarted.step(fails(turn, 3, RETRY));
    assert!(matches!(last.append[0], EventBody::TurnFinished { .. }), "{last:?}");
}

#[test]
fn a_full_context_is_summarized_and_the_model_asked_again() {
    let (mut state, turn) = asked();
    let full = Input::ContextFull { turn, step: 1, reason: "too long".into() };
    let step = state.step(full.clone());
    assert_eq!(step.append, []);
    assert_eq!(step.acts, [Act::Compact { turn, step: 1, reason: "too long".into(), times: 0 }]);
    assert_eq!(state.step(full), Step::default(), "it is summarized once");
    let step = state.step(compacted(turn, 1, 1));
    assert!(matches!(step.append[..], [EventBody::ContextCompacted { .. }, EventBody::ModelRequested { step: 2, .. }]));
    let summary = Message::Context { source: compaction::SOURCE.into(), text: "so far".into() };
    assert_eq!(state.conversation, [summary, Message::User { text: "fix it".into() }]);
}

#[test]
fn a_context_that_stays_full_ends_the_turn() {
    let (mut state, turn) = asked();
    for number in 1..=MAX_COMPACTIONS {
        let step = state.step(Input::ContextFull { turn, step: number, reason: "too long".into() });
        assert!(matches!(step.acts[..], [Act::Compact { times, .. }] if times == number - 1), "{step:?}");
        state.step(compacted(turn, number, 0));
    }
    let number = MAX_COMPACTIONS + 1;
    let step = state.step(Input::ContextFull { turn, step: number, reason: "too long".into() });
    let EventBody::TurnFinished { outcome: TurnOutcome::Failed { message, .. }, .. } = &step.append[0] else {
        panic!("{step:?}")
    };
    assert_eq!(message, "too long; it was compacted 3 times in a row and still does not fit");
}

#[test]
fn a_stop_ends_a_summary_too() {
    let (mut state, turn) = asked();
    state.step(Input::ContextFull { turn, step: 1, reason: "too long".into() });
    let step = state.step(Input::Stop);
    assert!(step.append.iter().any(|body| matches!(body, EventBody::TurnFinished { .. })), "{step:?}");
    assert_eq!(state.step(compacted(turn, 1, 1)), Step::default());
}

#[test]
fn a_cut_answer_runs_nothing_says_so_and_goes_on_but_not_for_ever() {
    let (mut state, turn) = asked();
    for number in 1..MAX_CUT_ANSWERS {
        let cut = answer(ModelStop::OutputLimit, Vec::new(), None);
        let step = state.step(Input::ModelResponded { turn, step: number, answer: cut });
        let [
            EventBody::ModelResponded { .. },
            EventBody::ContextAdded { source, .. },
            EventBody::ModelRequested { .. },
        ] = &step.append[..]
        else {
            panic!("{step:?}")
        };
        assert_eq!(source, "ostler");
    }
    let cut = answer(ModelStop::OutputLimit, Vec::new(), None);
    let step = state.step(Input::ModelResponded { turn, step: MAX_CUT_ANSWERS, answer: cut });
    assert!(matches!(step.append[1], EventBody::TurnFinished { outcome: TurnOutcome::Failed { .. }, .. }), "{step:?}");
}

#[test]
fn the_providers_count_is_kept_until_the_conversation_changes_under_it() {
    let (mut state, turn) = asked();
    let call = ToolCall { call: CallId::generate(), tool: "shell".into(), arguments: serde_json::json!({}) };
    let calls = vec![call];
    state.step(Input::ModelResponded { turn, step: 1, answer: answer(ModelStop::Finished, calls, Some(500)) });
    assert_eq!(state.counted, Some((2, 510)));
    state.apply(&EventBody::ContextCompacted {
        turn,
        replaced: 1,
        summary: "s".into(),
        by: Summarizer::Host,
        reason: "r".into(),
        tokens_before: 1,
        tokens_after: 1,
    });
    assert_eq!(state.counted, None);
}
