//! What is replaced of a conversation and what stays, for chosen conversations and random ones.

use ostler_protocol::CallId;
use ostler_protocol::event::{ToolCall, ToolOutcome};
use proptest::prelude::*;

use super::*;

fn user(text: &str) -> Message {
    Message::User { text: text.into() }
}

fn context(source: &str, text: &str) -> Message {
    Message::Context { source: source.into(), text: text.into() }
}

/// A step of the agent: what it says and calls, and what came of it.
fn step(text: &str, command: &str, output: &str) -> [Message; 2] {
    let call = CallId::generate();
    let arguments = serde_json::json!({ "command": command });
    let calls = vec![ToolCall { call, tool: "shell".into(), arguments }];
    let result = Message::Tool { call, outcome: ToolOutcome::Done, output: output.into(), exit_status: Some(0) };
    [Message::Assistant { text: text.into(), calls }, result]
}

fn limits(context_tokens: u32) -> Limits {
    Limits { context_tokens: Some(context_tokens), ..Limits::default() }
}

fn long_session() -> Vec<Message> {
    let mut messages = vec![user("first task"), context("AGENTS.md", "use tabs"), context("policy", "no curl")];
    for number in 0..20 {
        messages.extend(step(&format!("step {number}"), &format!("run {number}"), &"x".repeat(3_000)));
    }
    messages
}

#[test]
fn a_known_count_is_only_added_to() {
    let messages = long_session();
    let all = tokens(&messages, None);
    assert!(all > 20_000, "{all}");
    assert_eq!(tokens(&messages, Some((messages.len(), 5_000))), 5_000);
    let one_more = tokens(&messages, Some((messages.len() - 1, 5_000)));
    assert!((6_000..6_100).contains(&one_more), "{one_more}");
}

#[test]
fn a_context_is_too_long_before_it_is_full_and_never_where_its_size_is_not_known() {
    assert!(!is_too_long(80_000, limits(100_000)));
    assert!(is_too_long(84_000, limits(100_000)));
    assert!(!is_too_long(u64::MAX, Limits::default()));
}

#[test]
fn what_is_replaced_leaves_instructions_the_prompt_and_the_last_steps() {
    let messages = long_session();
    let cut = replaceable(&messages, tokens(&messages, None), limits(20_000), 0);
    assert!(matches!(messages[cut], Message::Assistant { .. }), "a result must not lose its call");
    let after = apply(&messages, cut, "the summary");
    let expected_head = [
        context("AGENTS.md", "use tabs"),
        context("policy", "no curl"),
        context(SOURCE, "the summary"),
        user("first task"),
    ];
    assert_eq!(after[..4], expected_head);
    assert_eq!(after[4..], messages[cut..]);
    assert!(tokens(&after, None) < 20_000 / 2, "{}", tokens(&after, None));
}

#[test]
fn a_second_summary_takes_the_place_of_the_first_and_more_is_replaced_each_time() {
    let messages = long_session();
    let first = replaceable(&messages, tokens(&messages, None), limits(20_000), 0);
    let second = replaceable(&messages, tokens(&messages, None), limits(20_000), 1);
    assert!(second > first, "{second} {first}");
    let mut after = apply(&messages, first, "one");
    after.push(user("second task"));
    after.extend((0..10).flat_map(|_| step("more", "run", &"y".repeat(3_000))));
    let cut = replaceable(&after, tokens(&after, None), limits(20_000), 0);
    let again = apply(&after, cut, "two");
    let summaries: Vec<&Message> =
        again.iter().filter(|message| matches!(message, Message::Context { source, .. } if source == SOURCE)).collect();
    assert_eq!(summaries, [&context(SOURCE, "two")]);
    let prompts: Vec<&Message> = again.iter().filter(|message| matches!(message, Message::User { .. })).collect();
    assert_eq!(prompts, [&user("second task")], "an earlier prompt is part of the summary");
}

#[test]
fn a_prompt_that_is_too_long_by_itself_cannot_be_helped() {
    let messages = [user(&"x".repeat(400_000)), context("AGENTS.md", "use tabs")];
    assert_eq!(replaceable(&messages, tokens(&messages, None), limits(8_000), 0), 0);
    assert_eq!(replaceable(&[], 0, limits(8_000), 0), 0);
}

#[test]
fn the_request_for_a_summary_fits_into_the_context_whatever_is_summarized() {
    let mut messages = vec![user("FIRST")];
    messages.extend((0..200).flat_map(|number| step(&format!("step {number}"), "run", &"x".repeat(9_000))));
    messages.push(user("LAST"));
    for context_tokens in [2_000, 8_000, 100_000] {
        let request = request(&messages, limits(context_tokens));
        assert!(tokens(&request.messages, Some((0, 0))) < u64::from(context_tokens) * 6 / 10);
        let [Message::User { text }] = request.messages.as_slice() else { panic!("one message") };
        assert!(text.contains("FIRST") && text.contains("LAST") && text.contains("messages left out"), "{text}");
    }
}

#[test]
fn the_hosts_own_summary_tells_what_was_asked_and_done() {
    let mut messages = vec![user("fix the parser"), context(SOURCE, "before that, much happened")];
    messages.extend(step("I look.", "cargo test", "FAILED"));
    insta::assert_snapshot!(host_summary(&messages));
}

proptest! {
    #[test]
    fn no_cut_loses_a_prompt_under_way_or_splits_a_call(kinds in proptest::collection::vec(0_u8..4, 0..60), room in 200_u32..20_000, times in 0_u32..4) {
        let mut messages = Vec::new();
        for kind in kinds {
            match kind {
                0 => messages.push(user("a task")),
                1 => messages.push(context("p", "a note")),
                _ => messages.extend(step("words", "run", &"z".repeat(usize::from(kind) * 500))),
            }
        }
        let before = tokens(&messages, None);
        let cut = replaceable(&messages, before, limits(room), times);
        prop_assert!(cut <= messages.len());
        if cut > 0 {
            let after = apply(&messages, cut, "s");
            let last = |messages: &[Message]| messages.iter().rfind(|m| matches!(m, Message::User { .. })).cloned();
            prop_assert_eq!(last(&messages), last(&after));
            let mut open: Vec<CallId> = Vec::new();
            for message in &after {
                match message {
                    Message::Assistant { calls, .. } => open.extend(calls.iter().map(|call| call.call)),
                    Message::Tool { call, .. } => prop_assert!(open.contains(call), "a result without its call"),
                    _ => {}
                }
            }
        }
    }
}
