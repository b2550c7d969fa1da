//! What a check found, and the report of all of them.

use serde::Serialize;

use super::catalogue::{self, Entry};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// As it should be.
    #[serde(rename = "OK")]
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// A host cannot run well like this.
    Failed,
    /// It could not be looked at; what was found says why.
    Skipped,
}

impl State {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "Warning",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }
}

/// A judgement: how it is, what was found, and what to do where something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub state: State,
    /// What was found, in one line without a final period.
    pub found: String,
    /// The command or edit to make. There is one for each warning and failure.
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self { state: State::Ok, found: found.into(), fix: None }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { state: State::Skipped, found: why.into(), fix: None }
    }

    pub(super) fn warning(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    pub(super) fn failed(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Failed, found: found.into(), fix: Some(fix.into()) }
    }

    /// As the finding of the check `id`.
    pub(super) fn of(self, id: &'static str) -> Check {
        Check::new(id, None, self)
    }

    /// As the finding of the check `id` of one of several things.
    pub(super) fn about(self, id: &'static str, subject: impl Into<String>) -> Check {
        Check::new(id, Some(subject.into()), self)
    }
}

/// A check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its stable id, see [`catalogue::ENTRIES`].
    pub id: &'static str,
    /// The name of its group.
    pub group: &'static str,
    /// Which of several things it is about, such as a provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(id: &'static str, subject: Option<String>, finding: Finding) -> Self {
        let Finding { state, found, fix } = finding;
        // Words of others may have lines.
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let group = catalogue::find(id).map_or("", |Entry { group, .. }| group.name());
        Self { id, group, subject, state, found: one_line(found), fix: fix.map(one_line) }
    }

    /// The id without its group: what a person reads under the group's title.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(_, name)| name)
    }
}

/// Everything that was found, in the order of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this form.
    pub version: u16,
    /// The checks.
    pub checks: Vec<Check>,
    /// How many of each state.
    pub summary: Summary,
}

/// How many checks are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// As they should be.
    pub ok: usize,
    /// To be known.
    pub warnings: usize,
    /// To be repaired.
    pub failed: usize,
    /// Not looked at.
    pub skipped: usize,
}

impl Report {
    pub(crate) const VERSION: u16 = 1;

    pub(crate) fn new(mut checks: Vec<Check>) -> Self {
        // Stable: what is about several things stays in their order.
        checks.sort_by_key(|check| catalogue::ENTRIES.iter().position(|entry| entry.id == check.id));
        let mut summary = Summary::default();
        for check in &checks {
            match check.state {
                State::Ok => summary.ok += 1,
                State::Warning => summary.warnings += 1,
                State::Failed => summary.failed += 1,
                State::Skipped => summary.skipped += 1,
            }
        }
        Self { version: Self::VERSION, checks, summary }
    }
}
