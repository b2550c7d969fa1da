//! `tool.execute.after`: the value is a tool's output as the model will see it.

use std::time::Duration;

use ostler_protocol::event::ToolOutcome;
use ostler_protocol::{CallId, TurnId};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Asked, Exports, Outcome, Scope, Subject};
use crate::plugins::bindings::tool_execute_after::exports::ostler::hooks::tool_execute_after as wit;
use crate::plugins::bindings::types;
use crate::plugins::hook::Hook;
use crate::plugins::state::State;
use crate::plugins::value::{self, ValueError};

pub use crate::plugins::bindings::tool_execute_after::HandlesToolExecuteAfterIndices as ToolAfterIndices;

/// A tool has run.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolAfter {
    /// Where.
    pub scope: Scope,
    /// In which turn.
    pub turn: TurnId,
    /// Which call.
    pub call: CallId,
    /// Name of the tool.
    pub tool: String,
    /// What it ran with.
    pub arguments: Value,
    /// How it ended. A denied call never ran and has no such event.
    pub outcome: ToolOutcome,
    /// Exit status, for commands.
    pub exit_status: Option<i32>,
    /// What the model is to be told.
    pub output: String,
    /// Wall time.
    pub took: Duration,
}

impl Subject for ToolAfter {
    const HOOK: Hook = Hook::ToolExecuteAfter;
    type Value = String;
    type Patch = wit::Patch;
    type Indices = ToolAfterIndices;

    fn indices(exports: &Exports) -> Option<&Self::Indices> {
        exports.tool_execute_after.as_ref()
    }

    fn value(&self) -> String {
        self.output.clone()
    }

    fn check(_: &String) -> Result<(), ValueError> {
        Ok(())
    }

    fn canonical(value: &String) -> String {
        value::canonical(&Value::from(value.as_str()))
    }

    fn patched(_: &String, patch: wit::Patch) -> Result<String, ValueError> {
        match patch {
            wit::Patch::Replace(output) => {
                value::check_size(output.len())?;
                Ok(output)
            }
            wit::Patch::Other(kind) => Err(ValueError::UnknownPatch { kind }),
        }
    }

    fn withheld(_: String, reason: &str) -> String {
        format!("[the output is withheld: {reason}]")
    }

    async fn ask(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        indices: &Self::Indices,
        asked: &Asked<String>,
    ) -> wasmtime::Result<Result<Outcome<wit::Patch>, types::HookError>> {
        let event = wit::Event {
            decision: asked.decision.to_string(),
            phase: super::phase(asked.phase),
            scope: super::scope(&self.scope),
            turn: self.turn.to_string(),
            call: self.call.to_string(),
            tool: self.tool.clone(),
            arguments: value::canonical(&self.arguments),
            status: status(self.outcome),
            exit_status: self.exit_status,
            output: asked.value.clone(),
            took_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            ext: Vec::new(),
        };
        let world = indices.load(&mut *store, instance)?;
        let answer = world.ostler_hooks_tool_execute_after().call_handle(store, &event).await?;
        Ok(answer.map(|outcome| Outcome { verdict: outcome.verdict, patch: outcome.patch, context: outcome.context }))
    }
}

fn status(outcome: ToolOutcome) -> wit::Status {
    match outcome {
        ToolOutcome::Done => wit::Status::Done,
        ToolOutcome::Failed => wit::Status::Failed,
        ToolOutcome::Denied => wit::Status::Other("denied".to_owned()),
        ToolOutcome::Stopped => wit::Status::Stopped,
        ToolOutcome::TimedOut => wit::Status::TimedOut,
        ToolOutcome::OutputLimit => wit::Status::OutputLimit,
        ToolOutcome::Unknown => wit::Status::Unknown,
    }
}
