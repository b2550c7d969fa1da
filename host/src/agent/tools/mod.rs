//! The agent's tools. Each is a definition for the model and a function over the [`Hands`].
//!
//! Tools know the workspace only through [`Hands`]; that hooks ran before is the session's business.

mod background;
mod command;
mod files;

use std::time::Duration;

use async_trait::async_trait;
use ostler_protocol::CallId;
use ostler_protocol::event::{CutOff, ToolOutcome};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What the model is told about a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// Why a sandbox is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// In words.
    pub why: String,
    /// What its guest did, where that is why.
    pub cut_off: Option<CutOff>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// What a tool gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutput {
    /// How it ended.
    pub outcome: ToolOutcome,
    /// Everything that it wrote or says.
    pub bytes: Vec<u8>,
    /// Whether `bytes` is only the beginning because a limit was reached.
    pub truncated: bool,
    /// Exit status, for commands.
    pub exit_status: Option<i32>,
    /// Why the sandbox is of no use any more, where it is not.
    pub lost: Option<Lost>,
    /// Wall time by the sandbox's clock, where it says it: an earlier host may have seen the beginning.
    pub wall: Option<Duration>,
}

impl ToolOutput {
    /// It worked and says `text`.
    pub fn done(text: impl Into<String>) -> Self {
        let bytes = text.into().into_bytes();
        Self { outcome: ToolOutcome::Done, bytes, truncated: false, exit_status: None, lost: None, wall: None }
    }

    /// It could not be done, and why, in words that help the model.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { outcome: ToolOutcome::Failed, ..Self::done(text) }
    }
}

/// A command for the workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The call that it belongs to; also its name in the sandbox.
    pub call: CallId,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Wall time after which it is ended.
    pub timeout: Duration,
}

/// Why the hands could not do something.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// The request is wrong; the words are for the model.
    #[error("{0}")]
    Refused(String),
    /// The sandbox is gone; whether the request took effect is not known.
    #[error("the sandbox went away: {0}")]
    Gone(Lost),
}

/// A file as the hands give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// Its bytes, at most as many as were asked for.
    pub bytes: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
}

/// A command in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundView {
    /// Its name.
    pub name: String,
    /// The beginning of its command line.
    pub command: String,
    /// `None` while it runs.
    pub exit_status: Option<i32>,
    /// Where it is in words, for a service that the repository declares.
    pub service: Option<String>,
}

/// A piece of what a command in the background wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundOutput {
    /// Position of the first byte; higher than was asked for where what came before is not kept any more.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How much it wrote so far.
    pub written: u64,
    /// `None` while it runs.
    pub exit_status: Option<i32>,
}

/// What a tool can do to a workspace. Paths are relative to it, or absolute within it.
#[async_trait]
pub trait Hands: Send + Sync {
    /// Runs a command to its end.
    async fn run(&self, command: Command) -> Result<ToolOutput, HandsError>;
    /// Starts a command line that goes on in the background. `false` where one of that name is there that was not stopped.
    async fn start(&self, name: &str, command: &str) -> Result<bool, HandsError>;
    /// The commands in the background, ended ones too.
    async fn background(&self) -> Result<Vec<BackgroundView>, HandsError>;
    /// At most `max` bytes of what one wrote, from `offset`; the last ones where it is absent.
    async fn background_output(
        &self,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<BackgroundOutput, HandsError>;
    /// Ends one with everything that it started; gives its exit status, where it is known.
    async fn stop(&self, name: &str) -> Result<Option<i32>, HandsError>;
    /// Starts a declared service, again where it runs; says where it is then.
    async fn restart(&self, name: &str) -> Result<String, HandsError>;
    /// Reads a regular file, at most `max` bytes of it.
    async fn read(&self, path: &str, max: u64) -> Result<FileContent, HandsError>;
    /// Replaces or makes a regular file.
    async fn write(&self, path: &str, content: &[u8]) -> Result<(), HandsError>;
    /// Names in a folder, sorted, folders with a slash behind; the second part is whether there are more.
    async fn list(&self, path: &str) -> Result<(Vec<String>, bool), HandsError>;
}

/// Runs a tool. Wrong arguments and refusals are results for the model, not errors.
pub async fn run(hands: &dyn Hands, call: CallId, tool: &str, arguments: &Value) -> ToolOutput {
    let result = match tool {
        "shell" => command::shell(hands, call, arguments).await,
        "shell_output" => background::output(hands, arguments).await,
        "shell_stop" => background::stop(hands, arguments).await,
        "service_restart" => background::restart(hands, arguments).await,
        "search" => command::search(hands, call, arguments).await,
        "read_file" => files::read_file(hands, arguments).await,
        "write_file" => files::write_file(hands, arguments).await,
        "edit_file" => files::edit_file(hands, arguments).await,
        "list_files" => files::list_files(hands, arguments).await,
        _ => Err(ToolError::Unknown(tool.to_owned())),
    };
    match result {
        Ok(output) => output,
        Err(ToolError::Hands(HandsError::Gone(lost))) => {
            let words = format!("the sandbox went away: {lost}; whether this took effect is not known");
            ToolOutput { outcome: ToolOutcome::Unknown, lost: Some(lost), ..ToolOutput::done(words) }
        }
        Err(error) => ToolOutput::failed(error.to_string()),
    }
}

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error("there is no tool `{0}`; there are: {names}", names = names())]
    Unknown(String),
    #[error("the arguments do not fit: {0}")]
    Arguments(String),
    #[error("{0}")]
    Impossible(String),
    #[error(transparent)]
    Hands(#[from] HandsError),
}

fn names() -> String {
    definitions().iter().map(|definition| definition.name).collect::<Vec<_>>().join(", ")
}

fn arguments<T: DeserializeOwned>(value: &Value) -> Result<T, ToolError> {
    T::deserialize(value).map_err(|error| ToolError::Arguments(error.to_string()))
}

/// What the model may call.
#[must_use]
pub fn definitions() -> Vec<ToolDefinition> {
    let text = |what: &str| json!({ "type": "string", "description": what });
    let object = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    vec![
        ToolDefinition {
            name: "shell",
            description: "Runs a command with bash in the workspace. Output is stdout and stderr together. No input. \
                          With `background` it goes on while you do other things, such as a server that you want to try.",
            parameters: object(
                json!({
                    "command": text("The command line"),
                    "timeout_ms": { "type": "integer", "minimum": 1, "description": "Time limit, 120000 when absent" },
                    "background": { "type": "boolean", "description": "Start it, do not wait for its end" },
                    "name": text("Name for a background command; chosen for you when absent"),
                }),
                &["command"],
            ),
        },
        ToolDefinition {
            name: "shell_output",
            description: "Shows what a background command or a service of the repository wrote last and whether it runs, or \
                          lists all of them.",
            parameters: object(
                json!({
                    "name": text("Name of the background command; all are listed when absent"),
                    "offset": { "type": "integer", "minimum": 0, "description": "First byte wanted; the last 16 KiB when absent" },
                }),
                &[],
            ),
        },
        ToolDefinition {
            name: "shell_stop",
            description: "Ends a background command or a service of the repository with everything that it started.",
            parameters: object(json!({ "name": text("Name of the background command or service") }), &["name"]),
        },
        ToolDefinition {
            name: "service_restart",
            description: "Starts a service of the repository, again where it runs, such as after its code was changed.",
            parameters: object(json!({ "name": text("Name of the service") }), &["name"]),
        },
        ToolDefinition {
            name: "read_file",
            description: "Reads a text file of the workspace with line numbers.",
            parameters: object(
                json!({
                    "path": text("Path in the workspace"),
                    "offset": { "type": "integer", "minimum": 1, "description": "First line, 1 when absent" },
                    "limit": { "type": "integer", "minimum": 1, "description": "Most lines, 2000 when absent" },
                }),
                &["path"],
            ),
        },
        ToolDefinition {
            name: "write_file",
            description: "Replaces or makes a file of the workspace, with the folders above it.",
            parameters: object(
                json!({ "path": text("Path in the workspace"), "content": text("All of it") }),
                &["path", "content"],
            ),
        },
        ToolDefinition {
            name: "edit_file",
            description: "Replaces one piece of a file. The old piece must occur exactly once.",
            parameters: object(
                json!({
                    "path": text("Path in the workspace"),
                    "old": text("The piece to replace, exactly"),
                    "new": text("What to put in its place"),
                }),
                &["path", "old", "new"],
            ),
        },
        ToolDefinition {
            name: "search",
            description: "Finds lines that match an extended regular expression, below a path of the workspace.",
            parameters: object(
                json!({ "pattern": text("The expression"), "path": text("Where, the whole workspace when absent") }),
                &["pattern"],
            ),
        },
        ToolDefinition {
            name: "list_files",
            description: "Lists a folder of the workspace. Folders end with a slash.",
            parameters: object(json!({ "path": text("The folder, the workspace itself when absent") }), &[]),
        },
    ]
}

#[cfg(test)]
mod tests;
