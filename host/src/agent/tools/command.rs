//! Tools that run a program in the workspace.

use std::time::Duration;

use ostler_protocol::CallId;
use ostler_protocol::event::ToolOutcome;
use serde::Deserialize;
use serde_json::Value;

use super::{Command, Hands, ToolError, ToolOutput, arguments};

/// Time limit of a command where the model names none.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Longest time limit that the model may name.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shell {
    command: String,
    timeout_ms: Option<u64>,
    #[serde(default)]
    background: bool,
    name: Option<String>,
}

pub(super) async fn shell(hands: &dyn Hands, call: CallId, value: &Value) -> Result<ToolOutput, ToolError> {
    let Shell { command, timeout_ms, background, name } = arguments(value)?;
    if command.trim().is_empty() {
        return Err(ToolError::Arguments("`command` is empty".into()));
    }
    if background {
        if timeout_ms.is_some() {
            let words =
                "a command in the background has no time limit: leave `timeout_ms` out, end it with `shell_stop`";
            return Err(ToolError::Arguments(words.into()));
        }
        return super::background::start(hands, call, name, &command).await;
    }
    if name.is_some() {
        return Err(ToolError::Arguments("`name` is for commands in the background; add `background: true`".into()));
    }
    let timeout = timeout_ms.map_or(TIMEOUT, Duration::from_millis);
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        let most = MAX_TIMEOUT.as_millis();
        return Err(ToolError::Arguments(format!("`timeout_ms` is {}, it must be 1 to {most}", timeout.as_millis())));
    }
    let argv = vec!["bash".into(), "-c".into(), command];
    Ok(hands.run(Command { call, argv, timeout }).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    pattern: String,
    path: Option<String>,
}

pub(super) async fn search(hands: &dyn Hands, call: CallId, value: &Value) -> Result<ToolOutput, ToolError> {
    let Search { pattern, path } = arguments(value)?;
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| ".".into());
    // Listing the path first gives a clear refusal for one outside the workspace, which grep would happily read.
    if hands.list(&path).await.is_err() {
        hands.read(&path, 1).await?;
    }
    let flags = ["grep", "-rnIE", "--exclude-dir=.git", "-m", "200", "-e"];
    let mut argv: Vec<String> = flags.into_iter().map(Into::into).collect();
    argv.extend([pattern, "--".into(), path]);
    let mut output = hands.run(Command { call, argv, timeout: TIMEOUT }).await?;
    if output.outcome == ToolOutcome::Done && output.exit_status == Some(1) && output.bytes.is_empty() {
        output = ToolOutput::done("nothing found");
    }
    output.exit_status = None;
    Ok(output)
}
