//! Services: what a repository declares in [`FILE`] to run in its workspaces beside the agent.
//!
//! ```text
//!  file ─► declaration.rs ─► machine.rs (State, Input) ─► effects ─► run.rs ─► guest, probes, Overseer
//!                                  ▲                                    │
//!                                  └────────── what came of them ◄──────┘
//! ```
//!
//! Owns when a service is started, ready, started again and stopped. One task per workspace supervises; the guest keeps the
//! table of what runs, so that the next host finds it. Does not know events or hooks: an [`Overseer`] has the words and the
//! decisions. The declaration may be an attacker's: it is read through the guest within a bound, and whatever it starts is
//! a command like every other in the sandbox.

mod declaration;
mod machine;
mod probe;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use ostler_protocol::DecisionId;
use ostler_protocol::event::Person;
use ostler_protocol::processes::ServiceState;
use tokio::sync::{mpsc, oneshot, watch};

pub use declaration::FILE;
pub use run::supervise;

/// Requests that wait for the supervisor.
const REQUESTS: usize = 16;

/// A service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The beginning of its command line.
    pub command: String,
    /// Where it is.
    pub state: ServiceState,
    /// Why, where that does not go without saying.
    pub why: Option<String>,
    /// How often it was started again by itself.
    pub restarts: u32,
}

/// What the log knows of an earlier supervision of the same sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The last state of each service.
    pub services: BTreeMap<String, ServiceState>,
    /// Runs of background commands whose ends were told, as (name, run).
    pub ended: BTreeSet<(String, String)>,
    /// For whom the sandbox works.
    pub author: Person,
}

/// Something to make an event of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A service changed its state.
    Service {
        /// Which.
        name: String,
        /// The new state.
        state: ServiceState,
        /// Why.
        why: Option<String>,
        /// The last of what it wrote.
        output: Option<String>,
        /// The decision that allowed its start.
        decision: Option<DecisionId>,
    },
    /// The declaration cannot be used.
    Refused {
        /// Why.
        reason: String,
    },
    /// A command in the background ended by itself.
    ProcessEnded {
        /// Its name.
        name: String,
        /// Which start of that name.
        run: String,
        /// Its exit status.
        exit_status: i32,
        /// The last of what it wrote.
        output: String,
    },
    /// There is more to tell than a log takes.
    TooMuch,
}

/// A start that the hooks let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The command line as it runs.
    pub command: String,
    /// The decision.
    pub decision: DecisionId,
}

/// Who is told, and asked.
#[async_trait]
pub trait Overseer: Send + Sync {
    /// Makes an event; returns when it is durable, `false` where nobody takes it any more.
    async fn tell(&self, news: News) -> bool;
    /// Asks the hooks about a start; the error says who denied it and why.
    async fn admit(&self, service: &str, command: &str) -> Result<Admission, String>;
    /// Whoever waits for the services need not wait any more.
    async fn settled(&self);
}

/// Why a service was not stopped or started as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// There is none of that name.
    #[error("the repository declares no service `{0}`")]
    Unknown(String),
    /// It was to be started and was not.
    #[error("service `{name}` was not started: {why}")]
    NotStarted {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// Nobody supervises any more.
    #[error("the services of this sandbox are not supervised any more")]
    Unsupervised,
    /// It took too long.
    #[error("service `{name}` did not {what} within {seconds} s")]
    Late {
        /// Which.
        name: String,
        /// What it was to do.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
}

/// What somebody wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// That it ends and stays so.
    Stop,
    /// That it is started, again where it runs.
    Restart,
}

/// A wish on its way to the supervisor.
struct Asked {
    name: String,
    wish: Wish,
    by: String,
    done: oneshot::Sender<Result<(), ServiceError>>,
}

enum Request {
    Asked(Asked),
    /// Stop all of them, in reverse order.
    End(oneshot::Sender<()>),
}

/// Where a workspace's supervisor is reached.
pub(super) struct Desk {
    requests: mpsc::Sender<Request>,
    inbox: Mutex<Option<mpsc::Receiver<Request>>>,
    seen: watch::Sender<Vec<ServiceStatus>>,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        Self { requests, inbox: Mutex::new(Some(inbox)), seen: watch::Sender::default() }
    }

    /// The services, in the order in which they are started.
    pub(super) fn list(&self) -> Vec<ServiceStatus> {
        self.seen.borrow().clone()
    }

    pub(super) fn is_service(&self, name: &str) -> bool {
        self.seen.borrow().iter().any(|service| service.name == name)
    }

    /// Asks for something and waits until it is done.
    pub(super) async fn ask(&self, name: &str, wish: Wish, by: &str) -> Result<(), ServiceError> {
        if !self.is_service(name) {
            return Err(ServiceError::Unknown(name.to_owned()));
        }
        let (done, answer) = oneshot::channel();
        let asked = Asked { name: name.to_owned(), wish, by: by.to_owned(), done };
        let answered = async {
            self.requests.send(Request::Asked(asked)).await.map_err(|_| ServiceError::Unsupervised)?;
            answer.await.unwrap_or(Err(ServiceError::Unsupervised))
        };
        let limit = run::STOP_LIMIT;
        let what = if wish == Wish::Stop { "end" } else { "start again" };
        let late = ServiceError::Late { name: name.to_owned(), what, seconds: limit.as_secs() };
        tokio::time::timeout(limit, answered).await.unwrap_or(Err(late))
    }

    /// Stops all of them in reverse order, as far as that is possible in time. Nobody is told: the sandbox ends.
    pub(super) async fn end(&self, limit: std::time::Duration) {
        if self.seen.borrow().is_empty() {
            return;
        }
        let (done, answer) = oneshot::channel();
        let ended = async {
            if self.requests.send(Request::End(done)).await.is_ok() {
                // A supervisor that is gone has nothing left to stop.
                let _ = answer.await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("some services were not stopped in time; they end with their sandbox");
        }
    }

    fn take_inbox(&self) -> Option<mpsc::Receiver<Request>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
