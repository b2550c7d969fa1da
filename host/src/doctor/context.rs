//! What the checks are about: gathered once, shared by all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ostler_sandbox::probe::Attempt;
use ostler_sandbox::standing::Standing;
use ostler_sandbox::wire::Failure;

use crate::app::Layout;
use crate::config::{ConfigError, HostConfig, Loaded, Problem};

/// What `ostler doctor` was asked to look at.
pub struct Inputs {
    /// The configuration, or everything that is wrong with it.
    pub configuration: Result<Loaded, ConfigError>,
    /// The program that the probe is a verb of.
    pub program: PathBuf,
    /// Whether providers are asked.
    pub network: Network,
}

/// Whether anything beyond this machine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It is.
    Asked,
    /// It is not.
    Offline,
}

/// Who looks, and as whom a host would be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looker {
    Root,
    Another,
}

impl Looker {
    /// What the launcher of such a host would have.
    pub(super) fn standing(self) -> Standing {
        match self {
            Self::Root => Standing::of_this_process(),
            Self::Another => Standing::Namespace,
        }
    }
}

/// A configuration that can be used, and what follows from it.
pub(super) struct Chosen {
    pub(super) host: HostConfig,
    pub(super) loaded: Loaded,
    /// What is wrong with files of keys.
    pub(super) key_problems: Vec<Problem>,
    pub(super) layout: Layout,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub(super) enum Tried {
    Works,
    Refused(Failure),
    /// It was not tried, and why.
    Not(String),
}

/// The outcomes of all attempts.
#[derive(Debug, Default)]
pub(super) struct Attempts(pub(super) HashMap<Attempt, Tried>);

impl Attempts {
    pub(super) fn of(&self, attempt: Attempt) -> Tried {
        self.0.get(&attempt).cloned().unwrap_or_else(|| Tried::Not("the probe did not say".to_owned()))
    }
}

/// The part of a path that is there already.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}
