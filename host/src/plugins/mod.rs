//! The plugin host: loads plugins and asks them at the hooks.
//!
//! ```text
//!  PluginHost ── generation() ──► Generation (a turn keeps the one it began with)
//!                                     │ session_start, tool_execute_before, tool_execute_after, pr_create
//!                                     ▼
//!                 chain: mutate ─► freeze ─► validate ─► merge        (pure parts: `merge`, `value`)
//!                                     │ each plugin, each call
//!                                     ▼
//!                 engine: a fresh store on a thread of the pool       (limits: `state`, `pool`)
//! ```
//!
//! This is the only module that knows WIT types; what others see are the events, [`Decision`] and the errors. It does
//! not perform effects and does not write the log: whoever asks does both.

mod bindings;
mod chain;
mod componentize;
mod engine;
mod hook;
mod hooks;
mod loader;
mod manifest;
mod merge;
mod pool;
mod problem;
mod state;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

pub use chain::{Decision, Fragment};
pub use componentize::{ComponentizeError, componentize};
pub use engine::{CallError, EngineError};
pub use hook::{Failure, Hook, Phase};
pub use hooks::{
    Effect, HookShape, PrCreate, PrSize, PrText, Scope, SessionSource, SessionStart, ToolAfter, ToolBefore,
};
pub use loader::{Package, PluginSource};
pub use manifest::{CONTRACT, ManifestError, Registration};
pub use problem::{PluginError, PluginProblem};
pub use value::ValueError;

use engine::GateEngine;
use loader::Plugin;

/// The plugins of this host. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost {
    generation: Generation,
    refused: Arc<Vec<PluginError>>,
}

/// A loaded plugin, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// Where and how it takes part.
    pub hooks: Vec<Registration>,
}

impl PluginHost {
    /// A host without plugins: decisions are made, and everything passes.
    #[must_use]
    pub fn empty() -> Self {
        Self { generation: Generation { engine: None, plugins: Arc::default() }, refused: Arc::default() }
    }

    /// Loads plugins. One that says `required = false` and cannot be loaded is left out, logged, and found in
    /// [`Self::refused`]; everything else that is wrong is an error.
    ///
    /// # Errors
    /// The first plugin that cannot be loaded.
    pub async fn load(sources: &[PluginSource]) -> Result<Self, PluginError> {
        let mut packages = Vec::with_capacity(sources.len());
        for source in sources {
            let source = source.clone();
            packages.push(blocking(move || loader::read(source)).await??);
        }
        Self::start(packages).await
    }

    /// Reads the files of a plugin without looking at its component. Blocks on the disk. For a host that reads them
    /// as the operator and runs them as someone else.
    ///
    /// # Errors
    /// Files that are missing, too large, or no manifest.
    pub fn read(source: PluginSource) -> Result<Package, PluginError> {
        loader::read(source)
    }

    /// Starts plugins that were read; see [`Self::load`].
    ///
    /// # Errors
    /// The first plugin that cannot be started.
    pub async fn start(packages: Vec<Package>) -> Result<Self, PluginError> {
        if packages.is_empty() {
            return Ok(Self::empty());
        }
        let engine = blocking(GateEngine::new).await?.map_err(|error| on_host(error.into()))?;
        let engine = Arc::new(engine);
        let (mut plugins, mut refused, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
        for package in packages {
            let id = package.manifest.id.clone();
            if !ids.insert(id.clone()) {
                return Err(PluginError { plugin: format!("`{id}`"), problem: PluginProblem::SameId });
            }
            let required = package.manifest.required;
            match loader::load(&engine, package).await {
                Ok(plugin) => {
                    tracing::info!(plugin = id, version = plugin.version, digest = plugin.digest, "plugin loaded");
                    plugins.push(Arc::new(plugin));
                }
                Err(error) if required => return Err(error),
                Err(error) => {
                    tracing::error!(plugin = id, error = error.describe(), "the host goes on without a plugin");
                    refused.push(error);
                }
            }
        }
        let generation = Generation { engine: Some(engine), plugins: Arc::new(plugins) };
        Ok(Self { generation, refused: Arc::new(refused) })
    }

    /// The loaded plugins, in the order of their sources.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginInfo> {
        let info = |plugin: &Arc<Plugin>| PluginInfo {
            id: plugin.guest.id.to_string(),
            version: plugin.version.clone(),
            digest: plugin.digest.clone(),
            hooks: plugin.hooks.clone(),
        };
        self.generation.plugins.iter().map(info).collect()
    }

    /// The plugins that are not required and could not be loaded.
    #[must_use]
    pub fn refused(&self) -> &[PluginError] {
        &self.refused
    }

    /// The plugins as they are now; a turn keeps this to its end.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation.clone()
    }
}

/// One set of plugins that does not change. Cheap to clone.
#[derive(Clone)]
pub struct Generation {
    engine: Option<Arc<GateEngine>>,
    plugins: Arc<Vec<Arc<Plugin>>>,
}

impl Generation {
    /// A session begins: plugins add context, or object.
    pub async fn session_start(&self, event: SessionStart) -> Decision<()> {
        chain::decide(self.engine.as_ref(), &self.plugins, event).await
    }

    /// A tool is about to run; the value is the arguments that it runs with.
    pub async fn tool_execute_before(&self, event: ToolBefore) -> Decision<Value> {
        chain::decide(self.engine.as_ref(), &self.plugins, event).await
    }

    /// A tool has run; the value is what the model is told, in every case.
    pub async fn tool_execute_after(&self, event: ToolAfter) -> Decision<String> {
        chain::decide(self.engine.as_ref(), &self.plugins, event).await
    }

    /// A pull request is about to be opened; the value is its text.
    pub async fn pr_create(&self, event: PrCreate) -> Decision<PrText> {
        chain::decide(self.engine.as_ref(), &self.plugins, event).await
    }
}

/// Runs what blocks where it may.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, PluginError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| on_host(PluginProblem::Engine(EngineError::Engine { source: error.into() })))
}

fn on_host(problem: PluginProblem) -> PluginError {
    PluginError { plugin: "host".to_owned(), problem }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
