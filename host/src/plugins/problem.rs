//! What can be wrong with a plugin at load: one variant per check, with what was found.

use std::path::PathBuf;

use super::engine::{CallError, EngineError};
use super::hook::Hook;
use super::hooks::HookShape;
use super::manifest::{CONTRACT, ManifestError};

/// A plugin that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} cannot be loaded")]
pub struct PluginError {
    /// Its id in backquotes, or where it is while the id is not known.
    pub plugin: String,
    /// What is wrong with it.
    #[source]
    pub problem: PluginProblem,
}

impl PluginError {
    /// The whole story in one line: which plugin, what, and why.
    #[must_use]
    pub fn describe(&self) -> String {
        super::describe(self)
    }
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginProblem {
    /// A file is missing or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// A file is too large.
    #[error("the {what} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Two plugins with one id.
    #[error("another plugin has the same id")]
    SameId,
    /// A core module was given.
    #[error("the file is a core module, not a component; make one with `ostler plugins componentize`")]
    CoreModule,
    /// It is not WebAssembly.
    #[error("the file is not a WebAssembly component")]
    NotWasm,
    /// It is damaged or uses what this host does not have.
    #[error("the component is not valid")]
    Invalid {
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It wants what a gate may not have.
    #[error("it imports what a plugin may not have: {}", names.join(", "))]
    Imports {
        /// Names of the interfaces.
        names: Vec<String>,
    },
    /// It was built for another contract, or for hooks that do not exist.
    #[error("it exports what the contract {CONTRACT} does not have: {}", names.join(", "))]
    UnknownExports {
        /// Names of the interfaces.
        names: Vec<String>,
    },
    /// The manifest names a hook that the component does not handle.
    #[error("the manifest names the hook `{hook}`, but the component does not export `{}`", hook.interface())]
    NotExported {
        /// Which.
        hook: Hook,
    },
    /// The component handles a hook that the manifest does not name.
    #[error("the component exports `{}`, but the manifest gives no phase for the hook `{hook}`", hook.interface())]
    NotInManifest {
        /// Which.
        hook: Hook,
    },
    /// An import has another type than the contract says.
    #[error("its imports do not fit the contract")]
    Link {
        /// Which and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A hook has another type than the contract says.
    #[error(transparent)]
    Shape(#[from] HookShape),
    /// It does not start, or its `init` does not answer.
    #[error("it does not start")]
    Start {
        /// Why.
        #[source]
        source: CallError,
    },
    /// Its `init` says that it cannot work, most often because of its configuration.
    #[error("it refuses its configuration: {message}")]
    Refused {
        /// In its words.
        message: String,
    },
    /// The machine cannot run plugins at all.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
