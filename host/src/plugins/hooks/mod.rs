//! One file per hook: its event, its value, and the way of both through the contract's types.
//!
//! What is the same for all of them, order, phases, failures and merging, is in `chain`; here is only what differs.

mod pr_create;
mod session_start;
mod tool_execute_after;
mod tool_execute_before;

use ostler_protocol::event::Person;
use ostler_protocol::{DecisionId, SessionId};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

pub use pr_create::{PrCreate, PrIndices, PrSize, PrText};
pub use session_start::{SessionSource, SessionStart, SessionStartIndices};
pub use tool_execute_after::{ToolAfter, ToolAfterIndices};
pub use tool_execute_before::{Effect, ToolBefore, ToolBeforeIndices};

use super::bindings::types;
use super::hook::{Hook, Phase};
use super::state::State;
use super::value::ValueError;

/// Where something happens and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Which session.
    pub session: SessionId,
    /// The sessions that spawned it, root first; empty for one that a person began.
    pub ancestors: Vec<SessionId>,
    /// Repository on the forge.
    pub repository: String,
    /// Branch that the work starts from.
    pub base_branch: String,
    /// Branch that the work goes to.
    pub branch: String,
    /// Who asked for the work.
    pub author: Person,
}

/// What goes through a hook: an event with a value in it that plugins may change or object to.
pub(super) trait Subject: Send + Sync + Sized + 'static {
    /// Which hook.
    const HOOK: Hook;
    /// What plugins decide about.
    type Value: Clone + PartialEq + Send + Sync + 'static;
    /// How they change it.
    type Patch: Send + 'static;
    /// The hook's functions in a component.
    type Indices: Clone + Send + Sync + 'static;

    /// Those functions in a loaded plugin, where it has them.
    fn indices(exports: &Exports) -> Option<&Self::Indices>;

    /// The value as the host made it.
    fn value(&self) -> Self::Value;

    /// Whether the host's own value can be decided about at all.
    fn check(value: &Self::Value) -> Result<(), ValueError>;

    /// Its one text, which the digest names.
    fn canonical(value: &Self::Value) -> String;

    /// The value after a change.
    fn patched(value: &Self::Value, patch: Self::Patch) -> Result<Self::Value, ValueError>;

    /// What the caller gets instead of a value that was denied for this reason.
    fn withheld(value: Self::Value, _reason: &str) -> Self::Value {
        value
    }

    /// Asks the plugin in this store.
    async fn ask(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        indices: &Self::Indices,
        asked: &Asked<Self::Value>,
    ) -> wasmtime::Result<Result<Outcome<Self::Patch>, types::HookError>>;
}

/// The hooks that a component handles, found by looking at its exports.
#[derive(Clone)]
pub(super) struct Exports {
    session_start: Option<SessionStartIndices>,
    tool_execute_before: Option<ToolBeforeIndices>,
    tool_execute_after: Option<ToolAfterIndices>,
    pr_create: Option<PrIndices>,
}

impl Exports {
    /// Probes a component for each hook.
    pub(super) fn find(pre: &InstancePre<State>) -> Self {
        Self {
            session_start: SessionStartIndices::new(pre).ok(),
            tool_execute_before: ToolBeforeIndices::new(pre).ok(),
            tool_execute_after: ToolAfterIndices::new(pre).ok(),
            pr_create: PrIndices::new(pre).ok(),
        }
    }

    /// Whether a hook is there.
    pub(super) const fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::SessionStart => self.session_start.is_some(),
            Hook::ToolExecuteBefore => self.tool_execute_before.is_some(),
            Hook::ToolExecuteAfter => self.tool_execute_after.is_some(),
            Hook::PrCreate => self.pr_create.is_some(),
        }
    }

    /// Whether each hook that is there has the types of the contract.
    pub(super) fn type_check(&self, store: &mut Store<State>, instance: &Instance) -> Result<(), HookShape> {
        let shape =
            |hook: Hook| move |error: wasmtime::Error| HookShape { hook, reason: error.root_cause().to_string() };
        if let Some(indices) = &self.session_start {
            indices.load(&mut *store, instance).map_err(shape(Hook::SessionStart))?;
        }
        if let Some(indices) = &self.tool_execute_before {
            indices.load(&mut *store, instance).map_err(shape(Hook::ToolExecuteBefore))?;
        }
        if let Some(indices) = &self.tool_execute_after {
            indices.load(&mut *store, instance).map_err(shape(Hook::ToolExecuteAfter))?;
        }
        if let Some(indices) = &self.pr_create {
            indices.load(&mut *store, instance).map_err(shape(Hook::PrCreate))?;
        }
        Ok(())
    }
}

/// A hook whose function is not that of the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`handle` of the hook `{hook}` is not that of the contract: {reason}")]
pub struct HookShape {
    /// Which hook.
    pub hook: Hook,
    /// What is different.
    pub reason: String,
}

/// The particulars of one question.
#[derive(Clone, Debug)]
pub(super) struct Asked<V> {
    /// Which decision it is for.
    pub(super) decision: DecisionId,
    /// In which phase.
    pub(super) phase: Phase,
    /// The value as it is now.
    pub(super) value: V,
}

/// What a plugin answered.
#[derive(Clone, Debug)]
pub(super) struct Outcome<P> {
    /// Its verdict, in the contract's words.
    pub(super) verdict: types::Verdict,
    /// Its change.
    pub(super) patch: Option<P>,
    /// What it wants the model to know.
    pub(super) context: Vec<types::Fragment>,
}

fn phase(phase: Phase) -> types::Phase {
    match phase {
        Phase::Mutate => types::Phase::Mutate,
        Phase::Validate => types::Phase::Validate,
    }
}

fn scope(scope: &Scope) -> types::Scope {
    types::Scope {
        session: scope.session.to_string(),
        ancestors: scope.ancestors.iter().map(ToString::to_string).collect(),
        repository: scope.repository.clone(),
        base_branch: scope.base_branch.clone(),
        branch: scope.branch.clone(),
        author: types::Person { name: scope.author.name.clone(), email: scope.author.email.clone(), ext: Vec::new() },
        ext: Vec::new(),
    }
}
