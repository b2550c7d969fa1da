//! The table of hooks: name, WIT interface, time, and what a failure means.
//!
//! The dotted name is what manifests, logs and people use; the interface has the same name with dashes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point at which plugins are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// A session begins.
    SessionStart,
    /// A tool is about to run.
    ToolExecuteBefore,
    /// A tool has run.
    ToolExecuteAfter,
    /// A pull request is about to be opened.
    PrCreate,
}

impl Hook {
    /// Every hook of this contract.
    pub const ALL: [Self; 4] = [Self::SessionStart, Self::ToolExecuteBefore, Self::ToolExecuteAfter, Self::PrCreate];

    /// Its name, such as `tool.execute.before`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionStart => "session.start",
            Self::ToolExecuteBefore => "tool.execute.before",
            Self::ToolExecuteAfter => "tool.execute.after",
            Self::PrCreate => "pr.create",
        }
    }

    /// Name of its interface in the contract, such as `tool-execute-before`.
    #[must_use]
    pub fn interface(self) -> String {
        self.name().replace('.', "-")
    }

    /// The hook of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// Wall time that one plugin may take for one call, without the time it waits for its turn.
    #[must_use]
    pub const fn budget(self) -> Duration {
        match self {
            Self::ToolExecuteBefore => Duration::from_millis(250),
            Self::ToolExecuteAfter => Duration::from_millis(500),
            Self::SessionStart | Self::PrCreate => Duration::from_secs(2),
        }
    }

    /// What it means when a plugin fails; a manifest may ask for more, never for less.
    #[must_use]
    pub const fn failure(self) -> Failure {
        match self {
            Self::SessionStart | Self::ToolExecuteAfter => Failure::Skip,
            Self::ToolExecuteBefore => Failure::Hold,
            Self::PrCreate => Failure::Closed,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to an effect when a plugin traps, runs out of time or memory, or answers nonsense. Mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It goes on without that plugin, and the decision says so.
    Skip,
    /// A person is asked; where nobody can be asked it is denied.
    Hold,
    /// It is denied.
    Closed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "skip",
            Self::Hold => "hold",
            Self::Closed => "closed",
        })
    }
}

/// In which phase a plugin takes part in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// One after the other, in order; a plugin may change the value.
    Mutate,
    /// All at once over the frozen value; a change is refused.
    Validate,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        })
    }
}
