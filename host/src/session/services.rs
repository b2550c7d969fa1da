//! What sessions are made of: the parts that every actor uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agent::model::Model;
use crate::forge::Forge;
use crate::plugins::PluginHost;
use crate::store::{Blobs, Index, SessionLogs};
use crate::workspace::Workspaces;

/// The parts that every session uses.
pub struct Services {
    /// Logs of the sessions.
    pub logs: SessionLogs,
    /// Index over them.
    pub index: Index,
    /// Large outputs.
    pub blobs: Blobs,
    /// Repositories.
    pub forge: Forge,
    /// Hooks.
    pub plugins: PluginHost,
    /// Sandboxes.
    pub workspaces: Workspaces,
    /// Models by name, and the default one.
    pub models: Models,
    /// Address of this host, as people reach it, without a slash at the end.
    pub url: String,
    /// The clock.
    pub clock: Clock,
}

/// Models by name.
#[derive(Clone)]
pub struct Models {
    default: String,
    by_name: HashMap<String, Arc<dyn Model>>,
}

impl Models {
    /// A set with its default.
    #[must_use]
    pub fn new(default: Arc<dyn Model>, others: impl IntoIterator<Item = Arc<dyn Model>>) -> Self {
        let name = default.name().to_owned();
        let all = std::iter::once(default).chain(others);
        Self { default: name, by_name: all.map(|model| (model.name().to_owned(), model)).collect() }
    }

    /// Name of the default model.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// A model by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Model>> {
        self.by_name.get(name).cloned()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_name.keys().cloned().collect();
        names.sort();
        names
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    /// Any clock, for tests.
    pub fn from_fn(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Now.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}
