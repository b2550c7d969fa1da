//! Decisions: verdicts, changes, order, and what failures mean.

use ostler_protocol::event::Verdict;
use serde_json::json;

use super::fixtures::*;
use crate::plugins::{Decision, Generation, PluginHost};

/// What a plugin does wrong in a call, as the body of its `handle`.
const TRAP: &str = "unreachable";
const SPIN: &str = "(loop (br 0)) unreachable";
const GROW: &str = "(loop (drop (memory.grow (i32.const 100))) (br 0)) unreachable";
const NONSENSE: &str = "i32.const 2147483644";

async fn one(on: On, phase: &str, component: Vec<u8>) -> Generation {
    host(on, &[("a", phase, "", component)]).await.unwrap().generation()
}

async fn before(generation: &Generation) -> Decision<serde_json::Value> {
    generation.tool_execute_before(tool_before("shell", json!({ "command": "ls" }))).await
}

fn deny(message: &'static str) -> Reply {
    Reply { verdict: DENY, rule: "rule", message, ..Reply::default() }
}

fn rewrite(case: u8, text: &'static str) -> Reply {
    Reply { patch: Some((case, text)), ..Reply::default() }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn without_plugins_everything_passes_and_is_still_a_decision() {
    let generation = PluginHost::empty().generation();
    let first = is_send(generation.tool_execute_before(tool_before("shell", json!({ "b": 1, "a": 2 })))).await;
    let second = generation.tool_execute_before(tool_before("shell", json!({ "a": 2, "b": 1 }))).await;
    assert_eq!((first.verdict, first.reasons.len()), (Verdict::Pass, 0));
    assert_ne!(first.id, second.id);
    assert_eq!(first.digest, second.digest, "the digest is that of the canonical text");
    assert_eq!(first.hook, "tool.execute.before");
}

#[tokio::test]
async fn arguments_that_are_no_object_are_denied_without_asking_anybody() {
    let decision = PluginHost::empty().generation().tool_execute_before(tool_before("shell", json!("ls"))).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(decision.why(), "ostler: the arguments are a string, not a JSON object");
}

#[tokio::test]
async fn each_verdict_of_a_plugin_counts() {
    let cases = [
        (PASS, Verdict::Pass, None),
        (ALLOW, Verdict::Pass, Some("a: rule: because")),
        (DENY, Verdict::Deny, Some("a: rule: because")),
        (ASK, Verdict::Deny, Some("a: rule: because")),
        (DEFER, Verdict::Deny, Some("a: rule: because")),
        (HALT, Verdict::Halt, Some("a: rule: because")),
        (OTHER, Verdict::Deny, Some("a: answered `rule`, which this host does not know")),
    ];
    for (verdict, expected, why) in cases {
        for phase in ["mutate", "validate"] {
            let reply = Reply { verdict, rule: "rule", message: "because", ..Reply::default() };
            let decision = before(&one(On::ToolBefore, phase, answering(On::ToolBefore, &reply)).await).await;
            assert_eq!(decision.verdict, expected, "case {verdict} in {phase}");
            assert_eq!(decision.why(), why.unwrap_or_default(), "case {verdict} in {phase}");
            let unasked = decision.reasons.iter().any(|reason| reason.text.contains("cannot ask anybody yet"));
            assert_eq!(unasked, [ASK, DEFER, OTHER].contains(&verdict), "case {verdict} in {phase}");
        }
    }
}

#[tokio::test]
async fn a_failure_means_what_the_hook_says() {
    let failures = [
        (TRAP, "it trapped: wasm `unreachable` instruction executed"),
        (SPIN, "it did not answer within "),
        (GROW, "it used more memory than it may"),
        (NONSENSE, "its answer cannot be read: "),
    ];
    for (body, expected) in failures {
        for on in [On::SessionStart, On::ToolBefore, On::ToolAfter, On::PrCreate] {
            if on != On::ToolBefore && body == SPIN {
                continue; // Its budget is up to two seconds.
            }
            let generation = one(on, "validate", doing(on, body, "")).await;
            let (verdict, reasons) = match on {
                On::SessionStart => {
                    let decision = generation.session_start(session_start()).await;
                    (decision.verdict, decision.reasons)
                }
                On::ToolBefore => {
                    let decision = before(&generation).await;
                    (decision.verdict, decision.reasons)
                }
                On::ToolAfter => {
                    let decision = generation.tool_execute_after(tool_after("shell", "out")).await;
                    assert_eq!(decision.value, "out");
                    (decision.verdict, decision.reasons)
                }
                On::PrCreate => {
                    let decision = generation.pr_create(pr_create("title")).await;
                    (decision.verdict, decision.reasons)
                }
            };
            let (meaning, what) = match on {
                On::SessionStart | On::ToolAfter => (Verdict::Pass, "failed and was skipped: "),
                On::ToolBefore => (Verdict::Deny, "failed, so a person must decide: "),
                On::PrCreate => (Verdict::Deny, "failed, which denies this: "),
            };
            assert_eq!(verdict, meaning, "{body} on {}: {reasons:?}", on.name());
            assert!(reasons[0].text.starts_with(what), "{reasons:?}");
            assert!(reasons[0].text.contains(expected), "{reasons:?}");
        }
    }
}

#[tokio::test]
async fn a_manifest_can_make_a_failure_deny() {
    let trap = doing(On::ToolAfter, TRAP, "");
    let generation =
        host(On::ToolAfter, &[("a", "validate", "failure = \"closed\"", trap)]).await.unwrap().generation();
    let decision = generation.tool_execute_after(tool_after("shell", "a secret")).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(!decision.value.contains("a secret"), "{}", decision.value);
}

#[tokio::test]
async fn a_trap_leaves_nothing_behind_for_the_next_call() {
    // It traps when it finds what an earlier call left in its memory.
    let body =
        "(if (i32.load (i32.const 512)) (then unreachable)) (i32.store (i32.const 512) (i32.const 1)) i32.const 1024";
    let generation = one(On::ToolBefore, "validate", doing(On::ToolBefore, body, "")).await;
    for _ in 0..100 {
        assert_eq!(before(&generation).await.verdict, Verdict::Pass);
    }
}

#[tokio::test]
async fn a_change_replaces_or_merges_and_is_a_rewrite() {
    let cases = [
        (REPLACE, r#"{"command": "true"}"#, json!({ "command": "true" })),
        (MERGE, r#"{"timeout": 5}"#, json!({ "command": "ls", "timeout": 5 })),
        (MERGE, r#"{"command": null}"#, json!({})),
    ];
    for (case, patch, expected) in cases {
        let reply = rewrite(case, patch);
        let decision = before(&one(On::ToolBefore, "mutate", answering(On::ToolBefore, &reply)).await).await;
        assert_eq!((decision.verdict, &decision.value), (Verdict::Rewrite, &expected));
        assert_eq!(decision.why(), "a: changed it");
    }
    let same = rewrite(MERGE, r#"{"command": "ls"}"#);
    let decision = before(&one(On::ToolBefore, "mutate", answering(On::ToolBefore, &same)).await).await;
    assert_eq!(decision.verdict, Verdict::Pass, "a change that changes nothing is none");
}

#[tokio::test]
async fn a_bad_change_is_a_failure_and_changes_nothing() {
    let cases = [
        (REPLACE, "{\"command\":", "is not JSON"),
        (REPLACE, "[1]", "an array, not a JSON object"),
        (MERGE, "7", "a number, not a JSON object"),
        (2, "teleport", "does not know: `teleport`"),
    ];
    for (case, patch, expected) in cases {
        let reply = rewrite(case, patch);
        let decision = before(&one(On::ToolBefore, "mutate", answering(On::ToolBefore, &reply)).await).await;
        assert_eq!(decision.verdict, Verdict::Deny, "{patch}");
        assert_eq!(decision.value, json!({ "command": "ls" }));
        assert!(decision.why().contains(expected), "{}", decision.why());
    }
}

#[tokio::test]
async fn a_change_in_the_validate_phase_is_refused_but_its_objection_counts() {
    let generation =
        one(On::ToolBefore, "validate", answering(On::ToolBefore, &rewrite(REPLACE, r#"{"command":"x"}"#))).await;
    let decision = before(&generation).await;
    assert_eq!((decision.verdict, decision.value.clone()), (Verdict::Deny, json!({ "command": "ls" })));
    assert!(decision.why().contains("in the validate phase"), "{}", decision.why());

    let reply = Reply { patch: Some((REPLACE, "{}")), ..Reply { verdict: HALT, ..deny("stop") } };
    let decision = before(&one(On::ToolBefore, "validate", answering(On::ToolBefore, &reply)).await).await;
    assert_eq!((decision.verdict, decision.why().as_str()), (Verdict::Halt, "a: rule: stop"));
}

#[tokio::test]
async fn mutators_go_by_priority_then_id_and_validators_see_the_end() {
    let first = answering(On::ToolBefore, &rewrite(REPLACE, r#"{"a":"first","b":"first"}"#));
    let second = answering(On::ToolBefore, &rewrite(MERGE, r#"{"b":"second"}"#));
    let third = answering(On::ToolBefore, &rewrite(MERGE, r#"{"b":"third"}"#));
    let plugins = [
        ("z", "mutate", "priority = 1", third),
        ("a", "mutate", "priority = 1", second),
        ("m", "mutate", "priority = 9", first),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let plugins = order.map(|index: usize| plugins[index].clone());
        let decision = before(&host(On::ToolBefore, &plugins).await.unwrap().generation()).await;
        assert_eq!(decision.value, json!({ "a": "first", "b": "third" }));
        let names: Vec<_> = decision.reasons.iter().map(|reason| reason.plugin.as_str()).collect();
        assert_eq!(names, ["m", "a", "z"]);
    }
}

#[tokio::test]
async fn validators_are_asked_about_what_mutators_made() {
    // The arguments of the event are at a fixed place: this validator traps unless their length is that of the new ones.
    let new = r#"{"command":"echo rewritten"}"#;
    let body = format!(
        "(if (i32.ne (i32.load (i32.add (local.get 0) (i32.const {}))) (i32.const {})) (then unreachable)) i32.const 1024",
        ARGUMENTS_LENGTH_OFFSET,
        new.len()
    );
    let plugins = [
        ("mutator", "mutate", "", answering(On::ToolBefore, &rewrite(REPLACE, new))),
        ("validator", "validate", "", doing(On::ToolBefore, &body, "")),
    ];
    let decision = before(&host(On::ToolBefore, &plugins).await.unwrap().generation()).await;
    assert_eq!(decision.verdict, Verdict::Rewrite, "{:?}", decision.reasons);
    let alone = [("validator", "validate", "", doing(On::ToolBefore, &body, ""))];
    let decision = before(&host(On::ToolBefore, &alone).await.unwrap().generation()).await;
    assert_eq!(decision.verdict, Verdict::Deny, "without the mutator the arguments are others");
}

/// Where the length of `arguments` is in an event of `tool-execute-before`: decision 8, phase 12, scope 72 (session,
/// ancestors, repository, base-branch, branch, author 24, ext), turn 8, call 8, tool 8, effect 12, then its pointer.
const ARGUMENTS_LENGTH_OFFSET: usize = 8 + 12 + 72 + 8 + 8 + 8 + 12 + 4;

#[tokio::test]
async fn the_strongest_of_many_counts_and_all_reasons_are_kept() {
    let reply = |verdict, message| answering(On::ToolBefore, &Reply { verdict, rule: "", message, ..Reply::default() });
    let plugins = [
        ("a", "validate", "", reply(ALLOW, "fine")),
        ("b", "validate", "", reply(DENY, "no")),
        ("c", "mutate", "", reply(ASK, "sure?")),
        ("d", "validate", "", doing(On::ToolBefore, TRAP, "")),
    ];
    let decision = before(&host(On::ToolBefore, &plugins).await.unwrap().generation()).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    let names: Vec<_> = decision.reasons.iter().map(|reason| reason.plugin.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "a"]);
}

#[tokio::test]
async fn a_halt_after_a_denial_is_still_heard() {
    let reply = |verdict| answering(On::ToolBefore, &Reply { verdict, rule: "", message: "x", ..Reply::default() });
    let plugins = [("a", "mutate", "", reply(DENY)), ("b", "mutate", "", reply(HALT))];
    let decision = before(&host(On::ToolBefore, &plugins).await.unwrap().generation()).await;
    assert_eq!(decision.verdict, Verdict::Halt);
}

#[tokio::test]
async fn every_hook_reaches_its_plugin_and_carries_context_and_change() {
    let with_context = Reply { context: Some("Be kind."), ..Reply::default() };
    let decision = one(On::SessionStart, "mutate", answering(On::SessionStart, &with_context))
        .await
        .session_start(session_start())
        .await;
    assert_eq!((decision.context[0].source.as_str(), decision.context[0].text.as_str()), ("a", "Be kind."));

    let redact = Reply { patch: Some((REPLACE, "[redacted]")), ..with_context.clone() };
    let generation = one(On::ToolAfter, "mutate", answering(On::ToolAfter, &redact)).await;
    let decision = generation.tool_execute_after(tool_after("shell", "token")).await;
    assert_eq!((decision.verdict, decision.value.as_str()), (Verdict::Rewrite, "[redacted]"));
    assert_eq!(decision.context[0].text, "Be kind.");

    let retitle = Reply { patch: Some((REPLACE, "A better title")), ..with_context };
    let generation = one(On::PrCreate, "mutate", answering(On::PrCreate, &retitle)).await;
    let decision = generation.pr_create(pr_create("title")).await;
    assert_eq!((decision.value.title.as_str(), decision.value.body.as_str()), ("A better title", "body"));
    assert_eq!(decision.context[0].text, "Be kind.");

    let untitled = Reply { patch: Some((REPLACE, " ")), ..Reply::default() };
    let generation = one(On::PrCreate, "mutate", answering(On::PrCreate, &untitled)).await;
    let decision = generation.pr_create(pr_create("title")).await;
    assert_eq!((decision.verdict, decision.value.title.as_str()), (Verdict::Deny, "title"));
}

#[tokio::test]
async fn a_denied_output_is_withheld_from_the_model() {
    let generation = one(On::ToolAfter, "validate", answering(On::ToolAfter, &deny("it holds a key"))).await;
    let decision = generation.tool_execute_after(tool_after("shell", "AKIA")).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(decision.value, "[the output is withheld: a: rule: it holds a key]");
}

#[tokio::test]
async fn a_spinning_plugin_does_not_hold_up_the_others() {
    let spin = host(On::ToolBefore, &[("spin", "validate", "", doing(On::ToolBefore, SPIN, ""))]).await.unwrap();
    let good =
        host(On::ToolBefore, &[("good", "validate", "", answering(On::ToolBefore, &Reply::default()))]).await.unwrap();
    let (spinning, passing) = (spin.generation(), good.generation());
    let (slow, quick) = tokio::join!(before(&spinning), before(&passing));
    assert_eq!((slow.verdict, quick.verdict), (Verdict::Deny, Verdict::Pass));
    assert!(quick.took < slow.took);
}

#[tokio::test]
async fn a_plugin_that_waits_in_a_host_call_is_stopped_too() {
    let imports = r#"
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#;
    // An hour, in nanoseconds.
    let body = "(call $block (call $after (i64.const 3600000000000))) i32.const 1024";
    let decision = before(&one(On::ToolBefore, "validate", with_wasi(imports, body)).await).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.why().contains("it did not answer within 250 ms"), "{}", decision.why());
}

#[tokio::test]
async fn wasi_is_there_and_holds_nothing() {
    let imports = r#"
        (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
        (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))"#;
    let empty = |function: &str| {
        format!("(call ${function} (i32.const 512)) (if (i32.load (i32.const 516)) (then unreachable))")
    };
    let body = format!("{} {} i32.const 1024", empty("environment"), empty("directories"));
    let decision = before(&one(On::ToolBefore, "validate", with_wasi(imports, &body)).await).await;
    assert_eq!(decision.verdict, Verdict::Pass, "{}", decision.why());
}

#[tokio::test]
async fn an_answer_that_is_not_text_is_a_failure() {
    // A denial whose message is one byte that is no UTF-8.
    let data = r#"(data (i32.const 1032) "\02") (data (i32.const 1048) "\00\08\00\00\01\00\00\00") (data (i32.const 2048) "\ff")"#;
    let generation = one(On::ToolBefore, "validate", doing(On::ToolBefore, "i32.const 1024", data)).await;
    let decision = before(&generation).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.why().contains("its answer cannot be read: "), "{}", decision.why());
}
