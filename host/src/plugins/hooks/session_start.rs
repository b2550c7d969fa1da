//! `session.start`: no value, plugins add context or object.

use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Asked, Exports, Outcome, Scope, Subject};
use crate::plugins::bindings::session_start::exports::ostler::hooks::session_start as wit;
use crate::plugins::bindings::types;
use crate::plugins::hook::Hook;
use crate::plugins::state::State;
use crate::plugins::value::ValueError;

pub use crate::plugins::bindings::session_start::HandlesSessionStartIndices as SessionStartIndices;

/// A session begins, before its first prompt reaches the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStart {
    /// Where.
    pub scope: Scope,
    /// How it came to begin.
    pub source: SessionSource,
}

/// How a session came to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// A person made it.
    New,
    /// Its host was away.
    Resume,
}

/// No patches: there is nothing to change.
pub enum Never {}

impl Subject for SessionStart {
    const HOOK: Hook = Hook::SessionStart;
    type Value = ();
    type Patch = Never;
    type Indices = SessionStartIndices;

    fn indices(exports: &Exports) -> Option<&Self::Indices> {
        exports.session_start.as_ref()
    }

    fn value(&self) {}

    fn check((): &()) -> Result<(), ValueError> {
        Ok(())
    }

    fn canonical((): &()) -> String {
        "null".to_owned()
    }

    fn patched((): &(), patch: Never) -> Result<(), ValueError> {
        match patch {}
    }

    async fn ask(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        indices: &Self::Indices,
        asked: &Asked<()>,
    ) -> wasmtime::Result<Result<Outcome<Never>, types::HookError>> {
        let event = wit::Event {
            decision: asked.decision.to_string(),
            phase: super::phase(asked.phase),
            scope: super::scope(&self.scope),
            source: match self.source {
                SessionSource::New => wit::Source::New,
                SessionSource::Resume => wit::Source::Resume,
            },
            ext: Vec::new(),
        };
        let world = indices.load(&mut *store, instance)?;
        let answer = world.ostler_hooks_session_start().call_handle(store, &event).await?;
        Ok(answer.map(|outcome| Outcome { verdict: outcome.verdict, patch: None, context: outcome.context }))
    }
}
