//! The `ostler` host: everything between a prompt and a pull request.
//!
//! ```text
//!  prompt ─► api ─► session (actor, pure machine) ─► agent (turn: model, tools)
//!                       │                               │ every effect passes one choke point
//!                       ▼                               ▼
//!                     store (log)                    plugins (hooks) ─► workspace (sandbox)
//!                                                                          │ door
//!                                                        forge (git, PRs) ◄┘
//! ```
//!
//! Layers, lower never imports higher: `config, egress, http, sse, telemetry` ‹ `store, forge, plugins` ‹ `workspace, agent, door`
//! ‹ `session` ‹ `api` ‹ `cli, app, doctor`.

pub mod app;
pub mod cli;
pub mod doctor;

pub mod api;

pub mod session;

pub mod agent;
pub mod door;
pub mod workspace;

pub mod forge;
pub mod plugins;
pub mod store;

pub mod config;
pub mod egress;
pub mod http;
pub mod sse;
pub mod telemetry;

#[cfg(test)]
mod pages;
