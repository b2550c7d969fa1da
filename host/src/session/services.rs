//! What sessions are made of: the parts that every actor uses.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agent::model::Models;
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
