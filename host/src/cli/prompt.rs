//! `ostler prompt`: gives a session that exists the next prompt.

use std::io::Read;
use std::path::Path;

use ostler_protocol::api::{MAX_PROMPT, PromptAccepted, SubmitPrompt};
use ostler_protocol::event::Person;
use ostler_protocol::{PromptId, SessionId};

use super::args::Prompt;
use super::author::author;
use super::client::Client;
use super::feed::{Feed, Patience};
use super::follow::{Until, View, follow};
use super::output::Printer;
use super::{CliError, ids};

/// What `--no-wait --json` prints.
#[derive(serde::Serialize)]
struct Submitted {
    session: SessionId,
    prompt: PromptId,
    seq: u64,
}

pub(super) async fn execute(prompt: Prompt, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(prompt.session, client).await?;
    let from_stdin = prompt.prompt == "-";
    let ask = |question: &str| if from_stdin { None } else { printer.ask(question) };
    let author = author(&prompt.author, Path::new("."), ask).await?;
    let text = if from_stdin { from_standard_input()? } else { prompt.prompt };
    let accepted = submit(session, text, Some(author), client).await?;
    if prompt.no_wait {
        let submitted = Submitted { session, prompt: accepted.prompt, seq: accepted.seq };
        return if prompt.json { printer.json(&submitted) } else { printer.line(&accepted.prompt.to_string()) };
    }
    // What was before is for `attach` and `events`.
    let feed = Feed::new(client, session, Patience::default()).after(accepted.seq.saturating_sub(1));
    let view = View::of(prompt.json, printer);
    follow(feed, Until::Prompt(accepted.prompt), view, printer).await
}

/// Gives the host a prompt.
pub(super) async fn submit(
    session: SessionId,
    text: String,
    author: Option<Person>,
    client: &Client,
) -> Result<PromptAccepted, CliError> {
    let prompt = SubmitPrompt { text, author };
    client.post_once("submit the prompt", &["sessions", &session.to_string(), "prompts"], &prompt).await
}

/// The prompt that stands on stdin.
pub(super) fn from_standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    // One byte more than the limit, so that the host can say that it is too long.
    std::io::stdin().lock().take(MAX_PROMPT as u64 + 1).read_to_string(&mut text).map_err(CliError::Stdin)?;
    Ok(text)
}
