//! Bodies of the API about what runs in a session's sandbox: ports, background commands, previews, terminals.

use serde::{Deserialize, Serialize};

use crate::SessionId;
use crate::event::Person;

/// Longest name of a background command or terminal, in characters.
pub const MAX_PROCESS_NAME: usize = 32;

/// Whether a background command or terminal can have this name: 1 to [`MAX_PROCESS_NAME`] lowercase letters, digits and
/// hyphens.
#[must_use]
pub fn is_process_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_PROCESS_NAME).contains(&name.len()) && name.bytes().all(fits)
}

/// Longest command line, in bytes.
pub const MAX_COMMAND: usize = 16 * 1024;

/// Most bytes of output that one answer holds.
pub const MAX_PIECE: u32 = 48 * 1024;

/// Previews of one session at a time.
pub const MAX_PREVIEWS: usize = 16;

/// Largest number of lines or columns of a terminal.
pub const MAX_WINDOW: u16 = 1000;

/// A TCP port on which something in the sandbox listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortView {
    /// The port.
    pub port: u16,
    /// The address that it is bound to; `0.0.0.0` and `::` are all of the sandbox.
    pub address: String,
    /// Name of the process, where that can be told. Processes choose their names themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// The ports of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortList {
    /// By number.
    pub ports: Vec<PortView>,
    /// Whether there are more than an answer holds.
    pub truncated: bool,
}

/// A command that is to go on in the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StartProcess {
    /// Its name: lowercase letters, digits and hyphens. One is chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 32, pattern = "^[a-z0-9-]+$"))]
    pub name: Option<String>,
    /// Command line for bash, 1 to 16384 bytes.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 16384, pattern = "^[^\\u0000]*[^\\u0000\\s][^\\u0000]*$")
    )]
    pub command: String,
    /// Who asks; the session's author when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Person>,
}

/// A command in the background of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessView {
    /// Its name.
    pub name: String,
    /// The beginning of its command line.
    pub command: String,
    /// Exit status, 128 and the signal where one ended it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Time since it was started, in milliseconds.
    pub age_ms: u64,
    /// Bytes that it wrote so far.
    pub written: u64,
    /// Position of the first of them that is kept.
    pub kept_from: u64,
    /// Where it is, for a service that the repository declares; the rest is then about its last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceView>,
}

/// Where a declared service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It starts when those before it are ready.
    Waiting,
    /// It runs and is not ready yet.
    Starting,
    /// It runs and is ready.
    Ready,
    /// It is being stopped.
    Stopping,
    /// It ended, and is started again after a pause.
    Restarting,
    /// It ended, or could not be started, and is not started again by itself.
    Failed,
    /// It did its work and ended.
    Ended,
    /// Somebody stopped it.
    Stopped,
}

impl ServiceState {
    /// In a word, as it is serialized.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
        }
    }
}

/// A declared service as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceView {
    /// The state.
    pub state: ServiceState,
    /// Why, where that does not go without saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How often it was started again by itself, as far as this host has seen.
    pub restarts: u32,
}

/// The commands in the background of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessList {
    /// The oldest first; ended ones are forgotten when there is no room for them any more.
    pub processes: Vec<ProcessView>,
}

/// A piece of what a background command wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessOutput {
    /// Position of the first byte: higher than was asked for where what came before is not kept any more.
    pub offset: u64,
    /// Position after the last byte, to be asked for next.
    pub next_offset: u64,
    /// Bytes that the command wrote so far.
    pub written: u64,
    /// What it wrote, as text; what is none is replaced.
    pub output: String,
    /// Exit status; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
}

/// A port that is to be seen in a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreatePreview {
    /// The port in the sandbox.
    #[serde(deserialize_with = "whole")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: u16,
}

/// A preview of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewView {
    /// Its name, also the first part of its host name.
    pub id: String,
    /// Whose sandbox.
    pub session: SessionId,
    /// The port in it.
    pub port: u16,
    /// Where to open it. Whoever has this address can use the preview until it expires, and nothing else of the host.
    pub url: String,
    /// When it ends by itself, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// The previews of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewList {
    /// The oldest first.
    pub previews: Vec<PreviewView>,
}

/// A terminal that is to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTerminal {
    /// Its name: lowercase letters, digits and hyphens. One is chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 32, pattern = "^[a-z0-9-]+$"))]
    pub name: Option<String>,
    /// Its size.
    pub window: Window,
    /// Who opens it; the session's author when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Person>,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Lines.
    #[serde(deserialize_with = "whole")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub rows: u16,
    /// Characters of a line.
    #[serde(deserialize_with = "whole")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub columns: u16,
}

/// A terminal in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminalView {
    /// Its name.
    pub name: String,
    /// Exit status of its shell; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Time since it was opened, in milliseconds.
    pub age_ms: u64,
}

/// The terminals of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminalList {
    /// The oldest first; ended ones are forgotten when there is no room for them any more.
    pub terminals: Vec<TerminalView>,
}

/// What a viewer of a terminal says in a text frame of its WebSocket. What is typed comes in binary frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToTerminal {
    /// The viewer's size is this now.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
}

/// What a viewer of a terminal is told in a text frame of its WebSocket. What is shown comes in binary frames; the first one
/// is what was shown before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromTerminal {
    /// The shell has ended; nothing follows.
    Exited {
        /// Its exit status, where that is known.
        exit_status: Option<i32>,
    },
    /// The view ends though the terminal goes on, or something that was asked for was not done.
    Error {
        /// Why.
        message: String,
    },
}

/// JSON knows one kind of number, and a schema takes `40.0` for the integer that it is.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number) {
        // In range and without a fraction, so nothing is lost.
        return Ok(number as u16);
    }
    Err(serde::de::Error::custom(format!("{number} is no whole number from 0 to {}", u16::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["web", "bg-0a", "-", &"x".repeat(MAX_PROCESS_NAME)] {
            assert!(is_process_name(name), "{name}");
        }
        for name in ["", "Web", "a b", "a/b", "a_b", "é", &"x".repeat(MAX_PROCESS_NAME + 1)] {
            assert!(!is_process_name(name), "{name}");
        }
    }

    #[test]
    fn a_port_is_a_whole_number() {
        let read =
            |text: &str| serde_json::from_str::<CreatePreview>(&format!("{{\"port\":{text}}}")).map(|read| read.port);
        assert_eq!(read("3000").unwrap(), 3000);
        assert_eq!(read("3000.0").unwrap(), 3000);
        for wrong in ["-1", "65536", "1.5", "1e99", "\"80\"", "null"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
