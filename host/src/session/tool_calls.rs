//! The acts of a tool call: what the hooks say, what it does, what the model is told.
//!
//! ```text
//!  decide ─► tool.execute.before ─► ToolDecided
//!  run    ─► the agent's hands ──► long output kept apart ─► tool.execute.after ─► ToolFinished
//!  adopt  ─► what ran meanwhile, or "unknown" ──────────────────┘
//! ```

use std::time::{Duration, Instant};

use ostler_protocol::event::{Blob, ToolCall, ToolOutcome};
use ostler_protocol::{CallId, TurnId};
use ostler_sandbox::fault;

use super::job::{Job, decided, fragment, milliseconds};
use super::state::{Input, ToolDecision, ToolResult};
use crate::agent::output;
use crate::agent::tools::{self, HandsError, Lost, ToolOutput};
use crate::plugins::{Effect, ToolAfter, ToolBefore};
use crate::workspace::{TurnHands, chain};

/// Asks the hooks about a call.
pub(super) async fn decide(job: Job, turn: TurnId, call: ToolCall) -> Option<Input> {
    let ToolCall { call, tool, arguments } = call;
    let event = ToolBefore {
        scope: job.scope(),
        turn,
        call,
        effect: effect(&tool),
        tool,
        arguments,
        working_directory: ostler_sandbox::wire::guest::WORKSPACE.into(),
    };
    let decision = job.generation.tool_execute_before(event).await;
    let decision = ToolDecision {
        id: decision.id,
        verdict: decision.verdict,
        reasons: decision.reasons,
        arguments: decision.value,
        digest: decision.digest,
        context: decision.context.into_iter().map(fragment).collect(),
    };
    Some(Input::ToolDecided { turn, call, decision })
}

fn hands(job: &Job) -> Option<TurnHands> {
    let workspace = job.workspace.clone()?;
    Some(TurnHands::new(workspace, job.author.clone(), job.cancel.clone(), job.deltas.clone()))
}

/// Runs a call that the hooks allowed.
pub(super) async fn run(job: Job, turn: TurnId, allowed: ToolCall) -> Option<Input> {
    let ToolCall { call, tool, arguments } = allowed;
    let began = Instant::now();
    let mut output = match hands(&job) {
        Some(hands) => tools::run(&hands, call, &tool, &arguments).await,
        None => ToolOutput::failed("there is no sandbox to run this in"),
    };
    give_up_lost(&job, &mut output).await;
    let ended = Ended { turn, call, tool, arguments, ran: output, took: began.elapsed() };
    let result = tool_result(&job, ended).await;
    Some(Input::ToolFinished { turn, call, result })
}

/// Where the sandbox was of no use any more: ends it, and says what the next tool finds.
async fn give_up_lost(job: &Job, output: &mut ToolOutput) {
    let Some(seen) = output.lost.take() else { return };
    let cut_off = seen.cut_off;
    let died = job.give_up_sandbox(seen).await;
    let words = match (died, cut_off) {
        (Some(died), _) => format!("the sandbox ended: {died}"),
        (None, Some(_)) => "the sandbox was cut off for this".to_owned(),
        (None, None) => return,
    };
    let words = format!("\n{words}. Its files are kept, and the next tool finds them.");
    output.bytes.extend_from_slice(words.as_bytes());
}

/// Finds out what became of a call that ran when the host went away.
pub(super) async fn adopt(job: Job, turn: TurnId, wanted: ToolCall) -> Option<Input> {
    let ToolCall { call, tool, arguments } = wanted;
    let began = Instant::now();
    let unknown = |text: &str| ToolOutput { outcome: ToolOutcome::Unknown, ..ToolOutput::done(text) };
    let hands = hands(&job);
    let adopted = match &hands {
        Some(hands) => hands.adopt(call).await,
        None => Err(HandsError::Gone(Lost { why: "there is no sandbox".into(), cut_off: None })),
    };
    let mut output = match adopted {
        Ok(Some(output)) => output,
        // The guest answers in order and remembers every command, so one that it does not know never reached it. The
        // other tools may be done twice, except an edit, which would not find what it replaced.
        Ok(None) if job.cancel.is_cancelled() => {
            ToolOutput { outcome: ToolOutcome::Stopped, ..ToolOutput::done("not run: the turn was stopped before it") }
        }
        Ok(None) if tool != "edit_file" => match &hands {
            Some(hands) => tools::run(hands, call, &tool, &arguments).await,
            None => unknown("there is no sandbox"),
        },
        Ok(None) => unknown(
            "the host went away while this was done and the sandbox has no record of it; whether it took effect is not \
             known",
        ),
        Err(error) => {
            let mut output =
                unknown(&format!("the host went away while this was done: {error}; its outcome is not known"));
            if let HandsError::Gone(lost) = error {
                output.lost = Some(lost);
            }
            output
        }
    };
    give_up_lost(&job, &mut output).await;
    let took = output.wall.unwrap_or_else(|| began.elapsed());
    let ended = Ended { turn, call, tool, arguments, ran: output, took };
    let result = tool_result(&job, ended).await;
    Some(Input::ToolFinished { turn, call, result })
}

/// A call that ended, before the hooks saw its output.
struct Ended {
    turn: TurnId,
    call: CallId,
    tool: String,
    arguments: serde_json::Value,
    ran: ToolOutput,
    took: Duration,
}

/// Keeps a long output, asks the hooks about what the model will see.
async fn tool_result(job: &Job, ended: Ended) -> ToolResult {
    let Ended { turn, call, tool, arguments, ran, took } = ended;
    let (mut text, cut) = output::preview(&ran.bytes);
    let mut blob = None;
    if cut || ran.truncated {
        let (blobs, bytes) = (job.services.blobs.clone(), ran.bytes);
        let kept = bytes.len() as u64;
        match tokio::task::spawn_blocking(move || blobs.put(&bytes)).await {
            Ok(Ok(digest)) => {
                blob = Some(Blob { digest, bytes: kept, truncated: ran.truncated });
            }
            Ok(Err(error)) => text.push_str(&format!("\n(only this part could be kept: {})", chain(&error))),
            Err(_) => text.push_str("\n(only this part could be kept)"),
        }
    }
    fault::point("tool.unnoted");
    let (outcome, exit_status) = (ran.outcome, ran.exit_status);
    let event = ToolAfter { scope: job.scope(), turn, call, tool, arguments, outcome, exit_status, output: text, took };
    let decision = job.generation.tool_execute_after(event).await;
    ToolResult {
        outcome: ran.outcome,
        decided: Some(decided(&decision, Some(call))),
        context: decision.context.into_iter().map(fragment).collect(),
        output: decision.value,
        blob,
        exit_status: ran.exit_status,
        took_ms: milliseconds(took),
    }
}

/// What kind of thing a tool does, for hooks that care about kinds.
fn effect(tool: &str) -> Effect {
    match tool {
        "read_file" | "list_files" | "search" | "shell_output" => Effect::Read,
        "write_file" | "edit_file" => Effect::Write,
        _ => Effect::Execute,
    }
}
