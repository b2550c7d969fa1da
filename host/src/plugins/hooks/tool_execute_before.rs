//! `tool.execute.before`: the value is the arguments of a tool call, a JSON object.

use ostler_protocol::{CallId, TurnId};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Asked, Exports, Outcome, Scope, Subject};
use crate::plugins::bindings::tool_execute_before::exports::ostler::hooks::tool_execute_before as wit;
use crate::plugins::bindings::types;
use crate::plugins::hook::Hook;
use crate::plugins::state::State;
use crate::plugins::value::{self, ValueError};

pub use crate::plugins::bindings::tool_execute_before::HandlesToolExecuteBeforeIndices as ToolBeforeIndices;

/// The model wants a tool to run.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolBefore {
    /// Where.
    pub scope: Scope,
    /// In which turn.
    pub turn: TurnId,
    /// Which call.
    pub call: CallId,
    /// Name of the tool.
    pub tool: String,
    /// What the tool can do to the world.
    pub effect: Effect,
    /// Its arguments: a JSON object, or the call is denied.
    pub arguments: Value,
    /// Directory in the sandbox that relative paths start from.
    pub working_directory: String,
}

/// What a tool can do to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It looks.
    Read,
    /// It changes files.
    Write,
    /// It runs a program.
    Execute,
    /// It talks to the network.
    Network,
    /// It pushes, or opens pull requests.
    VersionControl,
}

impl Subject for ToolBefore {
    const HOOK: Hook = Hook::ToolExecuteBefore;
    type Value = Value;
    type Patch = wit::Patch;
    type Indices = ToolBeforeIndices;

    fn indices(exports: &Exports) -> Option<&Self::Indices> {
        exports.tool_execute_before.as_ref()
    }

    fn value(&self) -> Value {
        self.arguments.clone()
    }

    fn check(value: &Value) -> Result<(), ValueError> {
        value::check_arguments(value)
    }

    fn canonical(value: &Value) -> String {
        value::canonical(value)
    }

    fn patched(value: &Value, patch: wit::Patch) -> Result<Value, ValueError> {
        let new = match patch {
            wit::Patch::Replace(text) => value::parse("new arguments", &text)?,
            wit::Patch::Merge(text) => value::merge_patch(value, value::parse("merge patch", &text)?),
            wit::Patch::Other(kind) => return Err(ValueError::UnknownPatch { kind }),
        };
        value::check_arguments(&new)?;
        Ok(new)
    }

    async fn ask(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        indices: &Self::Indices,
        asked: &Asked<Value>,
    ) -> wasmtime::Result<Result<Outcome<wit::Patch>, types::HookError>> {
        let event = wit::Event {
            decision: asked.decision.to_string(),
            phase: super::phase(asked.phase),
            scope: super::scope(&self.scope),
            turn: self.turn.to_string(),
            call: self.call.to_string(),
            tool: self.tool.clone(),
            effect: match self.effect {
                Effect::Read => wit::Effect::Read,
                Effect::Write => wit::Effect::Write,
                Effect::Execute => wit::Effect::Execute,
                Effect::Network => wit::Effect::Network,
                Effect::VersionControl => wit::Effect::VersionControl,
            },
            arguments: value::canonical(&asked.value),
            working_directory: self.working_directory.clone(),
            ext: Vec::new(),
        };
        let world = indices.load(&mut *store, instance)?;
        let answer = world.ostler_hooks_tool_execute_before().call_handle(store, &event).await?;
        Ok(answer.map(|outcome| Outcome { verdict: outcome.verdict, patch: outcome.patch, context: outcome.context }))
    }
}
