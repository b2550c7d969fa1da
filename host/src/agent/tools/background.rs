//! Tools for commands that go on in the background: starting, showing, ending.
//!
//! A command without a name of its own is named after the call that starts it, so that a start which is repeated after a
//! crash finds the command that is there and starts no second one. One with a name finds it by its command line too.

use ostler_protocol::CallId;
use ostler_protocol::processes::{MAX_PROCESS_NAME, is_process_name};
use serde::Deserialize;
use serde_json::Value;

use super::{Hands, ToolError, ToolOutput, arguments};

/// Bytes of output that are shown at once.
const SHOWN: u32 = 16 * 1024;

/// Characters of the call's identifier that name a command.
const SHORT: usize = 6;

pub(super) async fn start(
    hands: &dyn Hands,
    call: CallId,
    name: Option<String>,
    command: &str,
) -> Result<ToolOutput, ToolError> {
    let named = name.is_some();
    let name = name.unwrap_or_else(|| {
        let bare = call.bare();
        format!("bg-{}", &bare[bare.len().saturating_sub(SHORT)..])
    });
    check(&name)?;
    if !hands.start(&name, command).await? && named {
        check_repeated(hands, &name, command).await?;
    }
    Ok(ToolOutput::done(format!(
        "started in the background as `{name}`; `shell_output` shows what it writes, `shell_stop` ends it"
    )))
}

fn check(name: &str) -> Result<(), ToolError> {
    if is_process_name(name) {
        return Ok(());
    }
    let words = format!("`name` is `{name}`, it must be 1 to {MAX_PROCESS_NAME} lowercase letters, digits and hyphens");
    Err(ToolError::Arguments(words))
}

/// Fails where the command that has the name is another one, or runs no more.
async fn check_repeated(hands: &dyn Hands, name: &str, command: &str) -> Result<(), ToolError> {
    let found = hands.background().await?.into_iter().find(|found| found.name == name);
    if found.as_ref().is_some_and(|found| found.service.is_some()) {
        let words =
            format!("`{name}` is a service of the repository; `service_restart` starts it, or choose another name");
        return Err(ToolError::Impossible(words));
    }
    let how = match found.map(|found| (found.exit_status, command.starts_with(&found.command))) {
        Some((None, true)) => return Ok(()),
        Some((Some(status), _)) => format!(" and has ended with status {status}"),
        Some((None, false)) | None => String::new(),
    };
    let words = format!("a background command named `{name}` is there already{how}; choose another name");
    Err(ToolError::Impossible(words))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: Option<String>,
    offset: Option<u64>,
}

pub(super) async fn output(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let Output { name, offset } = arguments(value)?;
    let Some(name) = name else { return list(hands).await };
    let found = hands.background_output(&name, offset, SHOWN).await?;
    let state = found.exit_status.map_or_else(|| "running".to_owned(), |status| format!("ended with status {status}"));
    let end = found.offset + found.bytes.len() as u64;
    let mut head = format!("({state}; bytes {} to {end} of {}", found.offset, found.written);
    if offset.is_some_and(|offset| offset < found.offset) {
        head.push_str("; what came before is not kept any more");
    }
    if end < found.written {
        head.push_str(&format!("; read on with offset {end}"));
    }
    let mut bytes = format!("{head})\n").into_bytes();
    bytes.extend_from_slice(&found.bytes);
    Ok(ToolOutput { bytes, ..ToolOutput::done("") })
}

async fn list(hands: &dyn Hands) -> Result<ToolOutput, ToolError> {
    let found = hands.background().await?;
    if found.is_empty() {
        return Ok(ToolOutput::done("no command was started in the background"));
    }
    let line = |each: &super::BackgroundView| {
        let state = match (&each.service, each.exit_status) {
            (Some(state), _) => format!("service, {state}"),
            (None, None) => "running".to_owned(),
            (None, Some(status)) => format!("ended ({status})"),
        };
        format!("{}  {state}  {}\n", each.name, each.command.lines().next().unwrap_or_default())
    };
    Ok(ToolOutput::done(found.iter().map(line).collect::<String>()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) async fn restart(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let Named { name } = arguments(value)?;
    let state = hands.restart(&name).await?;
    Ok(ToolOutput::done(format!("`{name}` was started and is {state}; `shell_output` shows what it writes")))
}

pub(super) async fn stop(hands: &dyn Hands, value: &Value) -> Result<ToolOutput, ToolError> {
    let Named { name } = arguments(value)?;
    let status = hands.stop(&name).await?;
    let how = status.map_or_else(String::new, |status| format!(" with status {status}"));
    Ok(ToolOutput::done(format!("`{name}` has ended{how}")))
}
