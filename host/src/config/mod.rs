//! What an operator can choose, and every name by which it is chosen.
//!
//! Owns the shapes, the defaults and the names of environment variables. Flags are read by `cli`, which knows that
//! flags count more than the environment.

mod providers;
mod quantity;
mod secret;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use providers::{ModelSettings, ProviderKind, ProviderSettings};
pub use quantity::{ByteSize, Cpus, QuantityError};
pub use secret::Secret;

/// Every environment variable that Ostler reads of its own accord.
pub mod env {
    /// Key of the provider `anthropic`.
    pub const ANTHROPIC_API_KEY: &str = "ANTHROPIC_API_KEY";
    /// Address of the provider `anthropic`, where it is not the vendor's.
    pub const ANTHROPIC_BASE_URL: &str = "ANTHROPIC_BASE_URL";
    /// Key of the provider `openai`.
    pub const OPENAI_API_KEY: &str = "OPENAI_API_KEY";
    /// Address of the provider `openai`, where it is not the vendor's: any server that speaks chat completions.
    pub const OPENAI_BASE_URL: &str = "OPENAI_BASE_URL";
    /// Address of the host, for the command line.
    pub const URL: &str = "OSTLER_URL";
    /// API token, for the command line.
    pub const TOKEN: &str = "OSTLER_TOKEN";
    /// Folder in which a running host says where it is.
    pub const RUNTIME_DIR: &str = "OSTLER_RUNTIME_DIR";
    /// Folder of the host's state.
    pub const DATA: &str = "OSTLER_DATA";
    /// What is logged, in the words of `tracing_subscriber`.
    pub const LOG: &str = "OSTLER_LOG";
    /// The user's own runtime folder, by the XDG base directory specification.
    pub const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
    /// The point at which a test build ends itself; the installed program does not read it.
    pub const FAULT_POINT: &str = ostler_sandbox::fault::VARIABLE;
    /// No colour, by <https://no-color.org>.
    pub const NO_COLOR: &str = "NO_COLOR";
    /// What the terminal can do; `dumb` means no colour.
    pub const TERM: &str = "TERM";
}

/// Default folder of the host's state.
pub const DEFAULT_DATA: &str = "/var/lib/ostler";
/// Default address of the API: loopback, because what it serves is a shell on the operator's machine.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7878";
/// Default image of a workspace.
pub const DEFAULT_IMAGE: &str = "base";
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
    /// Model of a session that names none.
    pub model: Option<String>,
    /// Conversation that the scripted model plays.
    pub script: Option<PathBuf>,
    /// Providers of models by name; the part of a model's name before the first `/`.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Image of every workspace.
    pub image: String,
    /// Folders of the plugins to load, in order.
    pub plugins: Vec<PathBuf>,
    /// Limits of every sandbox.
    pub limits: SandboxLimits,
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
}

impl Default for SandboxLimits {
    /// Room for the tests of a small program, on a machine that runs several sandboxes.
    fn default() -> Self {
        Self { memory: ByteSize(2 << 30), pids: 1024, cpus: Cpus { millis: 2000 } }
    }
}
