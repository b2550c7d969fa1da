//! `kill -9` between every two steps from a finished turn to a pull request, and of what comes before one: putting a
//! repository on the forge.

use anyhow::Result;
use ostler_protocol::api::{PullRequestList, SessionStatus};
use ostler_protocol::{EventBody, SessionId};
use ostler_tests::repository::git;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use reqwest::Method;

/// In the order in which a publish passes them.
const POINTS: [&str; 8] = [
    "publish.begun",
    "forge.push-permitted",
    "forge.push-stored",
    "publish.pushed",
    "publish.push-noted",
    "publish.decided",
    "publish.decision-noted",
    "publish.kept",
];

#[tokio::test]
async fn a_host_that_is_killed_between_any_two_steps_of_publishing_still_opens_one_pull_request() -> Result<()> {
    let turns = script(&[&shell("echo work > work.txt"), END]);
    let (mut host, _) = Host::with_session(turns).await?;
    for point in POINTS {
        let session = host.prompt_and_fail_at(point).await?;
        let events = host.client.wait_until_idle(session).await?;
        let status = host.client.session(session).await?.status;
        assert_eq!(status, SessionStatus::Idle, "{point}: {events:#?}");
        let opened = events.iter().filter(|event| {
            matches!(event.body, EventBody::PullRequestOpened { .. } | EventBody::PullRequestUpdated { .. })
        });
        assert_eq!(opened.count(), 1, "{point}: {events:#?}");
        check_outcome(&host, session, point).await?;
    }
    Ok(())
}

/// One pull request of the session, whose branch ends with one commit more than its base, the person's.
async fn check_outcome(host: &Host, session: SessionId, point: &str) -> Result<()> {
    let pulls: PullRequestList = serde_json::from_value(host.client.ok(Method::GET, "/v1/pull-requests", None).await?)?;
    let pulls: Vec<_> = pulls.pull_requests.into_iter().filter(|pull| pull.session == session).collect();
    let [pull] = &pulls[..] else { panic!("{point}: {pulls:?}") };
    let bare = host.data().join("repositories/demo.git");
    let log = git(&bare, &["log", "--format=%H %an", &format!("main..{}", pull.head)])?;
    assert_eq!(log, format!("{} Test Person\n", pull.head_commit), "{point}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_killed_while_a_repository_comes_in_has_all_of_it_or_nothing() -> Result<()> {
    let mut host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let repository = Repository::with("demo", &[("a", "a")])?;
    for point in ["forge.unplaced", "forge.placed", "forge.push-permitted", "forge.push-stored"] {
        host.stop()?;
        host.arm(point);
        host.launch().await?;
        assert!(repository.push_to(&host.client).await.is_err(), "{point}: the host is gone in the middle");
        host.wait_for_fault()?;
        host.launch().await?;
        let folder = host.data().join("repositories");
        let names: Vec<String> = std::fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        let expected: &[&str] = if point == "forge.unplaced" { &[] } else { &["demo.git"] };
        assert_eq!(names, expected, "{point}");
        if let Some(bare) = names.first() {
            git(&folder.join(bare), &["fsck", "--strict"])?;
        }
    }
    repository.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle);
    Ok(())
}

/// A restored backup without the sandboxes' files, or files that were set aside as damaged.
#[tokio::test]
async fn work_that_was_pushed_is_there_again_where_the_files_of_its_workspace_are_lost() -> Result<()> {
    let turns = script(&[&shell("echo first > first.txt"), END, &shell("ls; echo second > second.txt"), END]);
    let (mut host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "one").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert!(events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. })), "{events:#?}");
    host.stop()?;
    for folder in std::fs::read_dir(host.data().join("store/sandboxes"))? {
        std::fs::remove_dir_all(folder?.path())?;
    }
    host.launch().await?;
    host.client.prompt(session, "two").await?;
    let events = host.client.wait_until_idle(session).await?;
    let told = events.iter().any(|event| match &event.body {
        EventBody::Notice { text } => text.contains("the workspace's earlier files were not found"),
        _ => false,
    });
    assert!(told, "people must know: {events:#?}");
    let bare = host.data().join("repositories/demo.git");
    let branch = host.client.session(session).await?.branch;
    let files = git(&bare, &["ls-tree", "--name-only", &branch])?;
    assert_eq!(files.lines().collect::<Vec<_>>(), ["a", "first.txt", "second.txt"], "{events:#?}");
    let commits = git(&bare, &["rev-list", "--count", &format!("main..{branch}")])?;
    assert_eq!(commits.trim(), "2", "both turns are in the pull request");
    Ok(())
}
