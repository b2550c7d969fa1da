//! The vocabulary of Ostler: what clients, the command line and the host say to each other.
//!
//! Serde types only: no I/O, no runtime. Words are used as follows.
//!
//! - **Session**: one agent at work on one repository, from its first prompt to its end.
//! - **Prompt**: what a person asks. Its author is stored with it, never derived.
//! - **Turn**: everything the agent does for one prompt: model requests and tool calls until it stops.
//! - **Tool call**: one request of the model to act, with a decision of the hooks before it.
//! - **Event**: what happened, numbered without gaps from 1 in each session, durable before anyone sees it.
//! - **Delta**: a piece of text on its way; shown live, never stored, superseded by an event.

pub mod api;
pub mod egress;
pub mod error;
pub mod event;
pub mod ids;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod processes;

pub use error::{ApiError, ErrorCode};
pub use event::{Delta, Event, EventBody};
pub use ids::{CallId, DecisionId, PromptId, PullRequestId, SessionId, TurnId};
