//! The HTTP edge: routes under `/v1`, who may use them, and the one shape of every error.
//!
//! ```text
//!  request ─► edge (request id, log, panics) ─► guard (Host, Origin, token) ─► router ─► handler ─► service traits
//!     │                                                                          │
//!     └ Host of a preview ─► preview (key) ─► the sandbox                        └─► /git (the forge's own router)
//! ```
//!
//! Owns everything HTTP: no other module knows a route, a header or a status. Does not know SQL, WIT or git; what
//! it needs of the host it reaches through the traits in [`service`].

mod document;
mod router;

mod auth;
mod edge;
mod error;
mod extract;
mod guard;
mod page;
mod preview;
mod validate;

mod events;
mod feed;
mod health;
mod processes;
mod pull_requests;
mod repositories;
mod sessions;
mod terminals;

mod serve;
mod service;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use auth::{ApiToken, TokenError, load_or_create_token, load_token};
pub use error::ApiFailure;
pub use guard::HostGuard;
pub use preview::Previews;
pub use router::router;
pub use serve::{ServeError, serve};
pub use service::{HealthSource, ProcessService, Repositories, SessionService};

/// Everything that the handlers need. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The sessions of this host.
    pub sessions: Arc<dyn SessionService>,
    /// What runs in their sandboxes.
    pub processes: Arc<dyn ProcessService>,
    /// Ports of sandboxes that can be seen in a browser.
    pub previews: Arc<Previews>,
    /// The repositories of the built-in forge.
    pub repositories: Arc<dyn Repositories>,
    /// What the host says of itself.
    pub health: Arc<dyn HealthSource>,
    /// Routes of the forge, served under `/git` for those who hold the token. They limit their own bodies.
    pub git: Router,
    /// What every request must carry.
    pub token: ApiToken,
    /// Which Host and Origin headers are answered.
    pub guard: HostGuard,
    /// Bounds on what a client may cost.
    pub limits: ApiLimits,
    /// Places for streams of events, as many as the limits say.
    pub streams: Arc<Semaphore>,
    /// Cancelled when the host stops: streams of events end, nothing new is accepted.
    pub stopping: CancellationToken,
}

/// Bounds on what a client may cost.
#[derive(Clone, Copy, Debug)]
pub struct ApiLimits {
    /// Largest body of a request under `/v1`, in bytes.
    pub body: usize,
    /// Time for a whole body to arrive.
    pub body_time: Duration,
    /// Time between two signs of life on a quiet stream of events.
    pub heartbeat: Duration,
    /// Streams of events that are open at the same time.
    pub streams: usize,
}

impl ApiLimits {
    /// Places for as many streams as may be open.
    #[must_use]
    pub fn stream_places(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.streams))
    }
}

impl Default for ApiLimits {
    /// A body holds the longest prompt even where JSON escapes most of it; the heartbeat is half of what proxies
    /// usually wait for; streams leave most connections to requests that end.
    fn default() -> Self {
        Self {
            body: 2 * 1024 * 1024,
            body_time: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            streams: 256,
        }
    }
}
