//! Stopping.

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::api::SessionStatus;
use ostler_protocol::event::{ToolOutcome, TurnOutcome};
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};

#[tokio::test]
async fn stop_ends_a_running_command_with_its_children_and_keeps_what_it_wrote() -> Result<()> {
    let turns = script(&[
        &shell("echo before; trap '' TERM; setsid sleep 4000 & sleep 4000"),
        &shell("ps -eo args | grep -c '[s]leep 4000'; echo after"),
        "expect = [{ call = 0, outcome = \"done\", pattern = \"^0\\nafter\" }]\nsay = \"Done.\"",
    ]);
    let (host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "hang").await?;
    host.client.wait_for_running_tool(session).await?;
    let view = host.client.stop(session).await?;
    assert_eq!(view.status, SessionStatus::Idle);
    let events = host.client.events(session).await?;
    let finished = events.iter().find_map(|event| match &event.body {
        EventBody::ToolFinished { outcome, output, .. } => Some((*outcome, output.clone())),
        _ => None,
    });
    assert_eq!(finished.map(|(outcome, _)| outcome), Some(ToolOutcome::Stopped), "{events:#?}");
    assert!(matches!(
        events.last().map(|event| &event.body),
        Some(EventBody::TurnFinished { outcome: TurnOutcome::Stopped, .. })
    ));
    host.client.prompt(session, "go on").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn stop_without_a_turn_changes_nothing() -> Result<()> {
    let host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.stop(session).await?;
    assert_eq!(host.client.events(session).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn stop_with_a_prompt_behind_it_ends_one_turn_and_lets_the_next_one_work() -> Result<()> {
    let turns = script(&[
        &shell("sleep 4000"),
        &shell("echo second"),
        &format!("expect = [{{ call = 0, outcome = \"done\", pattern = \"second\" }}]\n{END}"),
    ]);
    let (host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "hang").await?;
    host.client.wait_for_running_tool(session).await?;
    host.client.prompt(session, "next").await?;
    host.client.stop(session).await?;
    let events = host.client.wait_until_idle(session).await?;
    let outcomes: Vec<&TurnOutcome> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::TurnFinished { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert_eq!(outcomes, [&TurnOutcome::Stopped, &TurnOutcome::Done], "{events:#?}");
    Ok(())
}
