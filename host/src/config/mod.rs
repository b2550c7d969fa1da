//! What an operator can choose, and every name by which it is chosen.
//!
//! ```text
//!  table (one row per key) ──► file, kind ──► settings (default < file < environment < flag) ──► load ──► HostConfig
//!                         └──► show, schema, help of flags, reference page
//! ```
//!
//! Owns the shapes, the table of keys, the file and the precedence. Flags are read by `cli`, which hands them over as
//! values of the table. Does not know what the host does with them.

mod providers;
mod quantity;
mod secret;

pub mod env;
mod table;

mod kind;
mod value;

mod file;
mod key_path;
mod keys;
mod settings;

mod assemble;
mod egress;
mod load;
mod problem;

mod schema;
mod show;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::egress::Policy;

pub use file::DEFAULT_FILE;
pub use key_path::KeyPath;
pub use kind::{Kind, Wrong};
pub use load::{Inputs, Loaded};
pub(crate) use problem::nearest;
pub use problem::{ConfigError, Place, Position, Problem};
pub use providers::{ModelSettings, ProviderKind, ProviderSettings};
pub use quantity::{ByteSize, Cpus, QuantityError, TimeSpan};
pub use schema::schema;
pub use secret::Secret;
pub use settings::{Flag, Origin, Setting, Settings, Variables};
pub use show::Origins;
pub use table::{Fallback, KEYS, Key};
pub use value::Value;

/// Name of the token file in the folder of the host's state.
pub const TOKEN_FILE: &str = "token";

/// What `ostler up` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Folder of the host's state; made when it is not there.
    pub data: PathBuf,
    /// Folder in which the host says where it is.
    pub runtime: PathBuf,
    /// Address of the API. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further names by which the host may be addressed, without a port.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call the API.
    pub allowed_origins: Vec<String>,
    /// Model of a session that names none, if one was chosen; its provider is the scripted one or in `providers`.
    pub model: Option<String>,
    /// Conversation that the scripted model plays.
    pub script: Option<PathBuf>,
    /// Providers of models that are asked over HTTP, by name: the part of a model's name before the first `/`.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Image of every workspace.
    pub image: String,
    /// Folders of the plugins to load, in order.
    pub plugins: Vec<PathBuf>,
    /// Limits of every sandbox.
    pub limits: SandboxLimits,
    /// What may leave a sandbox.
    pub egress: Policy,
    /// Certificates that programs in sandboxes trust, where they are not the machine's.
    pub certificates: Option<PathBuf>,
    /// The host's log.
    pub log: LogSettings,
    /// Collector for traces and metrics, if there is one.
    pub otlp_endpoint: Option<String>,
}

/// Limits of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxLimits {
    /// Memory; swap is off.
    pub memory: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// Processor time.
    pub cpus: Cpus,
    /// Share of the processor time where sandboxes compete for it.
    pub cpu_weight: u32,
    /// The same for disks.
    pub io_weight: u32,
    /// Files of its own on the disk.
    pub disk: ByteSize,
    /// Names of files and folders.
    pub files: u32,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is let through, in the words of `tracing_subscriber`.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}
