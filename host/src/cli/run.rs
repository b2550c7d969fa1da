//! `ostler run`: brings a repository to the host, gives the agent a prompt, stays until the pull request is open.

use ostler_protocol::api::{CreateSession, RepositoryView, SessionView};
use reqwest::Url;

use super::args::Run;
use super::author::author;
use super::client::Client;
use super::feed::{Feed, Patience};
use super::follow::{Until, View, follow};
use super::git::{Repository, Start, repository_name};
use super::output::Printer;
use super::{CliError, prompt, terminal};

pub(super) async fn execute(run: Run, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    // Everything that can be wrong here is found before anything changes there.
    let repository = Repository::open(&run.repo).await?;
    let start = repository.start(run.branch.as_deref()).await?;
    let name = match &run.repository {
        Some(name) => name.clone(),
        None => repository_name(repository.folder_name()).ok_or_else(|| CliError::Repository {
            message: format!("the folder's name `{}` is no name for a repository", repository.folder_name()),
            hint: "name it with `--repository NAME`".to_owned(),
        })?,
    };
    let from_stdin = run.prompt == "-";
    let ask = |question: &str| if from_stdin { None } else { printer.ask(question) };
    let author = author(&run.author, repository.path(), ask).await?;
    let text = if from_stdin { prompt::from_standard_input()? } else { run.prompt.clone() };
    warn_about_uncommitted(&repository, &start, printer).await?;

    bring(&repository, &start, &name, client, printer).await?;
    let create = CreateSession { repository: name, branch: Some(start.branch), author, model: run.model.clone() };
    let session: SessionView = client.post_once("create a session", &["sessions"], &create).await?;
    let accepted = prompt::submit(session.id, text, None, client).await?;
    let view = View::of(run.json, printer);
    let feed = Feed::new(client, session.id, Patience::default());
    follow(feed, Until::Prompt(accepted.prompt), view, printer).await
}

/// Makes the repository on the host and pushes the branch to it.
async fn bring(
    repository: &Repository,
    start: &Start,
    name: &str,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let operation = "make the repository on the host";
    let view: RepositoryView = client.put(operation, &["repositories", name]).await?;
    let url = same_host(client.url(), &view.clone_url)
        .ok_or_else(|| CliError::Answer { operation, why: format!("`{}` is not an address", view.clone_url) })?;
    if let Some(before) = repository.push(start, &url, client.token()).await? {
        let (branch, before, now) = (&start.branch, short(&before), short(&start.commit));
        printer.note(&format!("the host's branch {branch} moved from {before} to {now}"));
    }
    Ok(())
}

/// The address under the host that we talk to: it may be reached by another name than it knows itself by, and the token
/// goes nowhere else.
fn same_host(host: &Url, clone_url: &str) -> Option<Url> {
    let path = clone_url.parse::<Url>().ok()?.path().to_owned();
    let mut url = host.clone();
    url.set_path(&path);
    Some(url)
}

async fn warn_about_uncommitted(repository: &Repository, start: &Start, printer: &mut Printer) -> Result<(), CliError> {
    let changes = if start.current { repository.uncommitted().await? } else { 0 };
    if changes > 0 {
        let commit = short(&start.commit);
        let what = if changes == 1 {
            "1 uncommitted change stays".to_owned()
        } else {
            format!("{changes} uncommitted changes stay")
        };
        printer.warning(&format!("{what} here: the agent starts from commit {commit} of {}", start.branch));
    }
    Ok(())
}

fn short(commit: &str) -> String {
    terminal::clean(commit).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_only_to_the_host_that_was_asked() {
        let host: Url = "http://127.0.0.1:9000".parse().unwrap();
        let url = same_host(&host, "http://evil.example:7878/git/demo.git").unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9000/git/demo.git");
        assert_eq!(same_host(&host, "/git/demo.git"), None);
    }
}
