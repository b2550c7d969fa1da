//! The agent: what it is told, which model answers, which tools it has.
//!
//! Knows neither sessions nor HTTP: the session's actor calls the parts of a turn from here one by one, because every
//! step between them is an event.

pub mod compaction;
pub mod context;
pub mod message;
pub mod model;
pub mod output;
pub mod tools;
