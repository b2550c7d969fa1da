//! `pr.create`: the value is title and description of a pull request.

use serde_json::json;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Asked, Exports, Outcome, Scope, Subject};
use crate::plugins::bindings::pr_create::exports::ostler::hooks::pr_create as wit;
use crate::plugins::bindings::types;
use crate::plugins::hook::Hook;
use crate::plugins::state::State;
use crate::plugins::value::{self, ValueError};

pub use crate::plugins::bindings::pr_create::HandlesPrCreateIndices as PrIndices;

/// A pull request is about to be opened as the author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrCreate {
    /// Where.
    pub scope: Scope,
    /// Title and description.
    pub text: PrText,
    /// Commit at the head of the branch, 40 hexadecimal digits.
    pub head_commit: String,
    /// How much it changes, where that was counted.
    pub size: Option<PrSize>,
}

/// How much a pull request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrSize {
    /// Files that it changes.
    pub files_changed: u32,
    /// Lines that it adds.
    pub lines_added: u32,
    /// Lines that it removes.
    pub lines_removed: u32,
}

/// Title and description of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrText {
    /// One line, not empty.
    pub title: String,
    /// Markdown, may be empty.
    pub body: String,
}

impl Subject for PrCreate {
    const HOOK: Hook = Hook::PrCreate;
    type Value = PrText;
    type Patch = wit::Patch;
    type Indices = PrIndices;

    fn indices(exports: &Exports) -> Option<&Self::Indices> {
        exports.pr_create.as_ref()
    }

    fn value(&self) -> PrText {
        self.text.clone()
    }

    fn check(value: &PrText) -> Result<(), ValueError> {
        if value.title.trim().is_empty() { Err(ValueError::Empty { what: "title" }) } else { Ok(()) }
    }

    fn canonical(value: &PrText) -> String {
        value::canonical(&json!({ "title": value.title, "body": value.body }))
    }

    fn patched(value: &PrText, patch: wit::Patch) -> Result<PrText, ValueError> {
        let changes = match patch {
            wit::Patch::Change(changes) => changes,
            wit::Patch::Other(kind) => return Err(ValueError::UnknownPatch { kind }),
        };
        let new = PrText {
            title: changes.title.unwrap_or_else(|| value.title.clone()),
            body: changes.body.unwrap_or_else(|| value.body.clone()),
        };
        value::check_size(new.title.len() + new.body.len())?;
        Self::check(&new)?;
        Ok(new)
    }

    async fn ask(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        indices: &Self::Indices,
        asked: &Asked<PrText>,
    ) -> wasmtime::Result<Result<Outcome<wit::Patch>, types::HookError>> {
        let event = wit::Event {
            decision: asked.decision.to_string(),
            phase: super::phase(asked.phase),
            scope: super::scope(&self.scope),
            title: asked.value.title.clone(),
            body: asked.value.body.clone(),
            head_commit: self.head_commit.clone(),
            size: self.size.map(|size| wit::Size {
                files_changed: size.files_changed,
                lines_added: size.lines_added,
                lines_removed: size.lines_removed,
                ext: Vec::new(),
            }),
            ext: Vec::new(),
        };
        let world = indices.load(&mut *store, instance)?;
        let answer = world.ostler_hooks_pr_create().call_handle(store, &event).await?;
        Ok(answer.map(|outcome| Outcome { verdict: outcome.verdict, patch: outcome.patch, context: outcome.context }))
    }
}
