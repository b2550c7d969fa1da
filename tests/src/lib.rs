//! A real host for tests: `ostler up` as a child process with its own folder, port and script, and a client for it.
//!
//! Variables say where things are; `cargo xtask test` sets them: `OSTLER_BIN` (the binary), `OSTLER_TEST_IMAGE`
//! (a root file system as tar), `OSTLER_POLICY_WASM` (the policy plugin as a component), `OSTLER_TEST_SCHEMATHESIS` (its
//! program) and `OSTLER_TEST_NODE_MODULES` (packages of the TypeScript client). A test without what it needs fails and
//! says so.

pub mod client;
pub mod contract;
pub mod debian_root;
pub mod host;
pub mod liar;
pub mod model_server;
pub mod ordinary_user;
pub mod repository;
pub mod runtime;
pub mod script;
pub mod small_disk;
pub mod tls_server;
pub mod torture;

pub use client::Client;
pub use debian_root::DebianRoot;
pub use host::{Host, HostOptions};
pub use model_server::{Fault, ModelServer};
pub use ordinary_user::OrdinaryUser;
pub use repository::Repository;
pub use small_disk::SmallDisk;
