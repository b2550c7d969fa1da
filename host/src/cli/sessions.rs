//! `ostler sessions`, `stop`, `diff`, `events` and `repositories`: one question to the host each.

use std::time::{SystemTime, UNIX_EPOCH};

use ostler_protocol::SessionId;
use ostler_protocol::api::{self, EventPage, RepositoryList, SessionList, SessionStatus, SessionView};

use super::args::{Diff, Events, Listing, Stop};
use super::client::Client;
use super::output::Printer;
use super::terminal::{ago, clean, one_line};
use super::transcript::Transcript;
use super::{CliError, ids, listing, table};

pub(super) async fn list(asked: Listing, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let sessions: SessionList = listing::read(&asked, "list sessions", "sessions", client).await?;
    if asked.json {
        return printer.json(&sessions);
    }
    if sessions.sessions.is_empty() {
        printer.note("there are no sessions yet; `ostler run \"…\"` makes one");
        return Ok(());
    }
    let text = rows(&sessions.sessions, now_ms());
    printer.data(&text)?;
    listing::mention_more(&sessions, printer);
    Ok(())
}

fn rows(sessions: &[SessionView], now_ms: u64) -> String {
    let row = |session: &SessionView| {
        [
            session.id.to_string(),
            status_and_mark(session),
            clean(&session.repository),
            ago(session.updated_at_ms, now_ms),
            one_line(&session.title, 60),
        ]
    };
    table::render(["SESSION", "STATUS", "REPOSITORY", "CHANGED", "TITLE"], sessions.iter().map(row))
}

fn status(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Idle => "idle",
        SessionStatus::Working => "working",
        SessionStatus::Failed => "failed",
    }
}

fn status_and_mark(session: &SessionView) -> String {
    let status = status(session.status);
    match session.sandboxes_cut_off {
        0 => status.to_owned(),
        1 => format!("{status}, a sandbox was cut off"),
        many => format!("{status}, {many} sandboxes were cut off"),
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn stop(stop: Stop, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(stop.session, client).await?;
    let session = ask_to_stop(session, client).await?;
    if stop.json {
        return printer.json(&session);
    }
    printer.note(&format!("session {} is {}", session.id, status(session.status)));
    Ok(())
}

/// Asks the host to stop the turn of a session.
pub(super) async fn ask_to_stop(session: SessionId, client: &Client) -> Result<SessionView, CliError> {
    let path = ["sessions", &session.to_string(), "stop"];
    client.post("stop the session", &path, &serde_json::json!({})).await
}

pub(super) async fn diff(diff: Diff, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(diff.session, client).await?;
    let path = ["sessions", &session.to_string(), "diff"];
    let answer: api::Diff = client.get("read the diff", &path).await?;
    if diff.json {
        return printer.json(&answer);
    }
    if answer.diff.is_empty() {
        printer.note("nothing was changed");
    }
    if answer.truncated {
        printer.warning("the diff is longer than the host sends; this is its beginning");
    }
    printer.foreign(&answer.diff)
}

pub(super) async fn events(events: Events, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(events.session, client).await?.to_string();
    let mut transcript = Transcript::new(printer.paint, false);
    let mut after = events.after;
    loop {
        let query = format!("format=json&after={after}");
        let page: EventPage = client.query("read the events", &["sessions", &session, "events"], &query).await?;
        for event in &page.events {
            if events.json {
                printer.json(event)?;
            } else {
                let text = transcript.event(event);
                printer.data(&text)?;
            }
        }
        let Some(last) = page.events.last() else { return Ok(()) };
        after = last.seq;
        // What happens while we read is for `attach`; a busy session must not keep us.
        if after >= page.head_seq {
            return Ok(());
        }
    }
}

pub(super) async fn repositories(asked: Listing, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let repositories: RepositoryList = listing::read(&asked, "list repositories", "repositories", client).await?;
    if asked.json {
        return printer.json(&repositories);
    }
    let row = |repository: &api::RepositoryView| {
        [&repository.name, &repository.default_branch, &repository.clone_url].map(|text| clean(text))
    };
    let text = table::render(["REPOSITORY", "BRANCH", "ADDRESS"], repositories.repositories.iter().map(row));
    printer.data(&text)?;
    listing::mention_more(&repositories, printer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ostler_protocol::event::Person;

    use super::*;

    #[test]
    fn sessions_are_rows_without_borders() {
        let session = SessionView {
            id: "ses_01jd3kq4v5w6x7y8z9a0b1c2d3".parse().unwrap(),
            repository: "demo".into(),
            base_branch: "main".into(),
            branch: "ostler/x".into(),
            author: Person { name: "Ada".into(), email: "ada@example.org".into() },
            status: SessionStatus::Working,
            model: "scripted/demo".into(),
            title: "make the test pass\u{1b}[31m".into(),
            head_seq: 1,
            pull_request: None,
            sandboxes_cut_off: 0,
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        insta::assert_snapshot!(rows(&[session], 125_000), @r"
        SESSION                         STATUS   REPOSITORY  CHANGED    TITLE
        ses_01jd3kq4v5w6x7y8z9a0b1c2d3  working  demo        2 min ago  make the test pass^[[31m
        ");
    }
}
