//! From a finished turn to a pull request, as durable steps that may be repeated.
//!
//! ```text
//!  commit + push ─► branch_pushed ─► hook pr.create ─► decided ─► pull request ─► pull_request_opened | _updated
//! ```
//!
//! Each step is an event before the next begins. After a crash the whole list runs again: a push that is still under way in
//! the sandbox is waited for, one of what is there already changes nothing, and the forge knows an open pull request by its
//! repository and head branch.

use ostler_protocol::event::Verdict;
use ostler_protocol::{ErrorCode, EventBody, TurnId};

use ostler_sandbox::fault;

use super::job::{Job, decided};
use super::state::Input;
use crate::forge::RepositoryName;
use crate::plugins::{PrCreate, PrText};
use crate::store::pulls::{NewPull, PullWrite};
use crate::workspace::{Commit, Published, chain, commit_message};

/// What is to be published.
pub(super) struct Work {
    /// First line of the first prompt.
    pub(super) title: String,
    /// The agent's last words.
    pub(super) description: String,
    /// Commit that the pull request ends with, where there is one.
    pub(super) published: Option<String>,
}

/// Publishes the work of a turn.
pub(super) async fn publish(job: Job, turn: TurnId, work: Work) -> Option<Input> {
    let event = match steps(&job, turn, &work).await {
        Ok(event) => event,
        Err(Skipped { reason, failure }) => EventBody::PublishSkipped { reason, failure },
    };
    Some(Input::Published { turn, events: vec![event] })
}

/// Why there is no pull request.
struct Skipped {
    reason: String,
    failure: Option<ErrorCode>,
}

impl Skipped {
    fn nothing(reason: &str) -> Self {
        Self { reason: reason.into(), failure: None }
    }

    fn failed(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), failure: Some(code) }
    }
}

async fn steps(job: &Job, turn: TurnId, work: &Work) -> Result<EventBody, Skipped> {
    let Some(workspace) = &job.workspace else {
        let reason = "the sandbox is gone; its files are kept for the next prompt";
        return Err(Skipped::failed(ErrorCode::SandboxFailed, reason));
    };
    fault::point("publish.begun");
    let commit = Commit { message: commit_message(&work.title, job.session), author: job.author.clone() };
    let commit = match workspace.publish(turn, commit).await {
        Ok(Published::Pushed(commit)) => commit,
        Ok(Published::Nothing) => return Err(Skipped::nothing("nothing was changed")),
        Err(error) => {
            let reason = format!("{}; the work is still in the workspace", chain(&error));
            return Err(Skipped::failed(error.code(), reason));
        }
    };
    fault::point("publish.pushed");
    // What the log says, not what the forge has: after a crash in the middle the pull request is still to be opened.
    if work.published.as_ref() == Some(&commit) {
        return Err(Skipped::nothing("nothing was changed"));
    }
    check_arrived(job, &commit).await?;
    let pushed = EventBody::BranchPushed { branch: job.identity.branch.clone(), commit: commit.clone() };
    if !job.note(pushed).await {
        return Err(Skipped::failed(ErrorCode::Unavailable, "the session ended meanwhile"));
    }
    fault::point("publish.push-noted");
    open_pull_request(job, work, commit).await
}

/// What the sandbox says of its push is a claim; what the forge holds is the fact.
async fn check_arrived(job: &Job, commit: &str) -> Result<(), Skipped> {
    let failed = |reason: String| Skipped::failed(ErrorCode::SandboxFailed, reason);
    let name = job.identity.repository.parse::<RepositoryName>().map_err(|error| failed(error.to_string()))?;
    let tip = job.services.forge.resolve(&name, Some(&job.identity.branch)).await;
    let tip = tip.map_err(|error| failed(format!("the push did not arrive: {}", chain(&error))))?;
    if tip.commit == commit {
        return Ok(());
    }
    Err(failed(format!("the sandbox says that it pushed {commit}, but the branch ends with {}", tip.commit)))
}

async fn open_pull_request(job: &Job, work: &Work, commit: String) -> Result<EventBody, Skipped> {
    let identity = &job.identity;
    let text = PrText { title: work.title.clone(), body: work.description.clone() };
    let event = PrCreate { scope: job.scope(), text, head_commit: commit.clone(), size: None };
    let decision = job.generation.pr_create(event).await;
    fault::point("publish.decided");
    if !job.note(decided(&decision, None)).await {
        return Err(Skipped::failed(ErrorCode::Unavailable, "the session ended meanwhile"));
    }
    fault::point("publish.decision-noted");
    if !matches!(decision.verdict, Verdict::Pass | Verdict::Rewrite) {
        let reasons: Vec<&str> = decision.reasons.iter().map(|reason| reason.text.as_str()).collect();
        let reason = format!("the branch is pushed, but no pull request was opened: {}", reasons.join("; "));
        return Err(Skipped::failed(ErrorCode::Denied, reason));
    }
    let new = NewPull {
        repository: identity.repository.clone(),
        title: decision.value.title,
        body: decision.value.body,
        base: identity.base_branch.clone(),
        head: identity.branch.clone(),
        head_commit: commit.clone(),
        author: job.author.clone(),
        session: job.session,
        url_base: job.services.url.clone(),
        created_at_ms: job.services.clock.now_ms(),
    };
    let (pull, write) = job.services.index.put_pull_request(new).await.map_err(|error| {
        let reason = format!("the branch is pushed, but the pull request could not be kept: {}", chain(&error));
        Skipped::failed(error.code(), reason)
    })?;
    fault::point("publish.kept");
    let (pull_request, number, url, decision) = (pull.id, pull.number, pull.url, decision.id);
    Ok(match write {
        PullWrite::Opened => EventBody::PullRequestOpened { pull_request, number, title: pull.title, url, decision },
        PullWrite::Updated => EventBody::PullRequestUpdated { pull_request, number, commit, url, decision },
    })
}
