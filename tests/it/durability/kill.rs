//! `kill -9` at bad moments.

use anyhow::Result;
use ostler_protocol::api::SessionStatus;
use ostler_protocol::event::ToolOutcome;
use ostler_protocol::{Event, EventBody, SessionId};
use ostler_sandbox::client::launcher::Launcher;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};

fn tool_outcomes(events: &[Event]) -> Vec<(ToolOutcome, String)> {
    let outcome = |event: &Event| match &event.body {
        EventBody::ToolFinished { outcome, output, .. } => Some((*outcome, output.clone())),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

#[tokio::test]
async fn a_tool_that_runs_while_the_host_is_killed_is_adopted_and_runs_once() -> Result<()> {
    let turns = script(&[
        &shell("echo ran >> count; until [ -e go ]; do sleep 0.05; done; echo finished; wc -l < count"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"finished\\n1\" }}]\n{END}"),
        &shell("cat count"),
        &format!("expect = [{{ call = 0, outcome = \"done\", pattern = \"^ran\" }}]\n{END}"),
    ]);
    let (mut host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "wait").await?;
    let before = host.client.wait_for_running_tool(session).await?;
    host.kill()?;
    host.launch().await?;
    let after = host.client.events(session).await?;
    assert_eq!(after[..before.len()], before[..], "what was acknowledged is still there");
    // The tool waits for a file that only a person with root on the host could make from outside; make it from inside.
    let upper = find_workspace(&host)?;
    std::fs::write(upper.join("go"), "")?;
    let events = host.client.wait_until_idle(session).await?;
    let outcomes = tool_outcomes(&events);
    assert_eq!(outcomes.len(), 1, "{events:#?}");
    assert_eq!(outcomes[0].0, ToolOutcome::Done, "{events:#?}");
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    host.client.prompt(session, "next").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    Ok(())
}

/// Somebody who took the host over can say that it is of any later epoch; the next one's index has never heard of it.
#[tokio::test]
async fn a_host_goes_on_from_an_epoch_that_only_the_launcher_knows() -> Result<()> {
    let turns = script(&[&shell("echo kept > kept.txt"), END, &shell("cat kept.txt"), END]);
    let (mut host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "first").await?;
    host.client.wait_until_idle(session).await?;
    let workspace = find_workspace(&host)?;
    host.kill()?;
    let (taken, living) = Launcher::connect(&host.data().join("run/launcher.sock"), 1000).await?;
    assert_eq!(living.len(), 1, "{living:?}");
    drop(taken);
    host.launch().await?;
    host.client.prompt(session, "second").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(tool_outcomes(&events).last(), Some(&(ToolOutcome::Done, "kept\n".to_owned())), "{events:#?}");
    assert_eq!(find_workspace(&host)?, workspace, "the sandbox is the same");
    Ok(())
}

/// The workspace folder of the only sandbox, through its PID 1.
pub(super) fn find_workspace(host: &Host) -> Result<std::path::PathBuf> {
    let pids = sandbox_processes(host)?;
    let first = pids.first().ok_or_else(|| anyhow::anyhow!("no process of the sandbox is alive"))?;
    Ok(std::path::PathBuf::from(format!("/proc/{first}/root/workspace")))
}

/// Processes of workspaces, which descend from this host's launcher as those of git do.
fn sandbox_processes(host: &Host) -> Result<Vec<u32>> {
    let launcher = super::clean_up::launcher_pid(host)?;
    let has_workspace = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}/root/workspace")).exists();
    Ok(super::clean_up::descendants(launcher)?.into_iter().filter(has_workspace).collect())
}

#[tokio::test]
async fn when_host_and_launcher_are_killed_the_outcome_is_declared_unknown_and_the_files_are_kept() -> Result<()> {
    let turns = script(&[
        &shell("echo kept > kept.txt; sync; sleep 4000"),
        END,
        &shell("cat kept.txt"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"kept\" }}]\n{END}"),
    ]);
    let (mut host, session, _) = hanging(turns, "kept.txt").await?;
    let launcher = super::clean_up::launcher_pid(&host)?;
    host.kill()?;
    super::clean_up::kill_process(launcher)?;
    host.launch().await?;
    let events = host.client.wait_until_idle(session).await?;
    let outcomes = tool_outcomes(&events);
    assert_eq!(outcomes[0].0, ToolOutcome::Unknown, "{events:#?}");
    assert!(
        events.iter().any(|event| matches!(event.body, EventBody::WorkspaceLost { .. })),
        "it is said: {events:#?}"
    );
    host.client.prompt(session, "look").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    assert!(
        events.iter().any(|event| matches!(event.body, EventBody::WorkspaceReady { restored: true, .. })),
        "the files were found again: {events:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_killed_while_a_workspace_is_filled_fills_it_again() -> Result<()> {
    let turns = script(&[
        &shell("cat a && git status --short --branch"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"content\" }}]\n{END}"),
    ]);
    let mut host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "content")])?.push_to(&host.client).await?;
    for point in ["workspace.made", "workspace.filled"] {
        let session = host.prompt_and_fail_at(point).await?;
        let events = host.client.wait_until_idle(session).await?;
        assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{point}: {events:#?}");
        assert!(
            events.iter().any(|event| matches!(event.body, EventBody::WorkspaceLost { .. })),
            "{point}: that a sandbox was given up is said: {events:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_git_lock_that_outlived_its_sandbox_does_not_keep_the_work_from_being_published() -> Result<()> {
    let turns = script(&[&shell("echo work > work.txt; touch .git/index.lock; sync; sleep 4000"), END]);
    let (mut host, session, _) = hanging(turns, ".git/index.lock").await?;
    let launcher = super::clean_up::launcher_pid(&host)?;
    host.kill()?;
    super::clean_up::kill_process(launcher)?;
    host.launch().await?;
    let events = host.client.wait_until_idle(session).await?;
    assert!(is_published(&events), "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_ended_before_its_result_was_in_the_log_is_not_run_again() -> Result<()> {
    let turns = script(&[
        &shell("echo ran >> count; wc -l < count"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"^1\" }}]\n{END}"),
    ]);
    let (mut host, _) = Host::with_session(turns).await?;
    let session = host.prompt_and_fail_at("tool.unnoted").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    assert_eq!(tool_outcomes(&events).len(), 1, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_host_whose_launcher_dies_says_so_and_ends_and_the_next_one_goes_on() -> Result<()> {
    let turns = script(&[&shell("echo kept > kept.txt; sync; sleep 4000"), END]);
    let (mut host, session, _) = hanging(turns, "kept.txt").await?;
    super::clean_up::kill_process(super::clean_up::launcher_pid(&host)?)?;
    assert_eq!(host.wait_for_end()?, Some(6), "{}", host.log());
    assert!(host.log().contains("error: the launcher is gone"), "{}", host.log());
    host.launch().await?;
    let events = host.client.wait_until_idle(session).await?;
    assert!(is_published(&events), "the kept file is published: {events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_sandbox_that_dies_under_a_tool_is_replaced_with_its_files_and_the_turn_goes_on() -> Result<()> {
    let turns = script(&[
        &shell("echo kept > kept.txt; sync; sleep 4000"),
        &format!("expect = [{{ call = 0, outcome = \"unknown\" }}]\n{}", shell("cat kept.txt")),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"kept\" }}]\n{END}"),
    ]);
    let (host, session, _) = hanging(turns, "kept.txt").await?;
    let first = sandbox_processes(&host)?;
    super::clean_up::kill_process(*first.first().ok_or_else(|| anyhow::anyhow!("a sandbox lives"))?)?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    let lost = events.iter().filter(|event| matches!(event.body, EventBody::WorkspaceLost { .. })).count();
    assert_eq!(lost, 1, "one sandbox died, and that is said once: {events:#?}");
    Ok(())
}

/// A host whose first tool has written `file` and then hangs; the session, and its log until the tool began.
async fn hanging(turns: String, file: &str) -> Result<(Host, SessionId, Vec<Event>)> {
    let (host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "hang").await?;
    let before = host.client.wait_for_running_tool(session).await?;
    wait_for_file(&host, file)?;
    Ok((host, session, before))
}

/// Whether the work was published.
fn is_published(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. }))
}

fn wait_for_file(host: &Host, name: &str) -> Result<()> {
    let path = find_workspace(host)?.join(name);
    let deadline = std::time::Instant::now() + ostler_tests::client::PATIENCE;
    while !path.exists() {
        anyhow::ensure!(std::time::Instant::now() < deadline, "{name} did not appear in the workspace");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

#[tokio::test]
async fn a_clean_stop_keeps_the_workspace_for_the_next_start() -> Result<()> {
    let turns = script(&[
        &shell("echo kept > kept.txt"),
        END,
        &shell("cat kept.txt"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"kept\" }}]\n{END}"),
    ]);
    let (mut host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "write").await?;
    host.client.wait_until_idle(session).await?;
    assert_eq!(host.stop()?, Some(0), "{}", host.log());
    host.launch().await?;
    host.client.prompt(session, "read").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_clean_stop_in_the_middle_of_a_tool_leaves_the_turn_for_the_next_start() -> Result<()> {
    let turns = script(&[&shell("echo kept > kept.txt; sync; sleep 4000"), END]);
    let (mut host, session, before) = hanging(turns, "kept.txt").await?;
    assert_eq!(host.stop()?, Some(0), "{}", host.log());
    host.launch().await?;
    let events = host.client.wait_until_idle(session).await?;
    let next = events.get(before.len()).map(|event| &event.body);
    assert!(matches!(next, Some(EventBody::WorkspaceLost { .. })), "the stop itself added nothing: {events:#?}");
    assert_eq!(tool_outcomes(&events)[0].0, ToolOutcome::Unknown, "{events:#?}");
    assert!(is_published(&events), "the kept file is published: {events:#?}");
    Ok(())
}
