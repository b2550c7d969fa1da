//! `ostler pr`: what came out.

use ostler_protocol::api::{PullRequestDetail, PullRequestList, PullRequestState, PullRequestView};

use super::args::{Pr, PrCommand};
use super::client::Client;
use super::output::Printer;
use super::sessions::now_ms;
use super::terminal::{ago, clean, one_line};
use super::{CliError, ids, listing, table};

pub(super) async fn execute(pr: Pr, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    match pr.command {
        PrCommand::List(asked) => {
            let pulls: PullRequestList = listing::read(&asked, "list pull requests", "pull-requests", client).await?;
            if asked.json {
                return printer.json(&pulls);
            }
            if pulls.pull_requests.is_empty() {
                printer.note("there are no pull requests yet");
                return Ok(());
            }
            let text = rows(&pulls.pull_requests, now_ms());
            printer.data(&text)?;
            listing::mention_more(&pulls, printer);
            Ok(())
        }
        PrCommand::Show { id, json } => {
            let id = ids::pull_request(id, client).await?;
            let path = ["pull-requests", &id.to_string()];
            let detail: PullRequestDetail = client.get("show the pull request", &path).await?;
            if json {
                return printer.json(&detail);
            }
            if detail.diff.truncated {
                printer.warning("the diff is longer than the host sends; this is its beginning");
            }
            printer.data(&heading(&detail.pull_request))?;
            printer.foreign(&detail.diff.diff)
        }
    }
}

fn rows(pulls: &[PullRequestView], now_ms: u64) -> String {
    let row = |pull: &PullRequestView| {
        [
            pull.id.to_string(),
            format!("{} #{}", clean(&pull.repository), pull.number),
            state(pull.state).to_owned(),
            clean(&pull.author.name),
            ago(pull.created_at_ms, now_ms),
            one_line(&pull.title, 60),
        ]
    };
    table::render(["PULL REQUEST", "NUMBER", "STATE", "AUTHOR", "OPENED", "TITLE"], pulls.iter().map(row))
}

fn heading(pull: &PullRequestView) -> String {
    let lines = [
        format!("{} #{}: {}", pull.repository, pull.number, one_line(&pull.title, 200)),
        format!("  state    {}", state(pull.state)),
        format!("  author   {} <{}>", pull.author.name, pull.author.email),
        format!("  branch   {} into {}", pull.head, pull.base),
        format!("  commit   {}", pull.head_commit),
        format!("  session  {}", pull.session),
        format!("  address  {}", pull.url),
        String::new(),
        pull.body.trim_end().to_owned(),
        String::new(),
    ];
    clean(&lines.join("\n")) + "\n"
}

fn state(state: PullRequestState) -> &'static str {
    match state {
        PullRequestState::Open => "open",
        PullRequestState::Merged => "merged",
        PullRequestState::Closed => "closed",
    }
}
