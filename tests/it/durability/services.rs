//! Services and background commands through crashes, restarts and clean stops.

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::processes::ServiceState;
use ostler_tests::client::tool_outputs;
use ostler_tests::script::{END, script, shell};
use reqwest::Method;
use serde_json::json;

use crate::functional::services::{declared, listed, states, told, turn, wait_for_state};

const COUNTED: &str = "[web]\ncommand = \"echo run >> /workspace/runs; exec sleep 1000\"\nready = { command = \"test -e /workspace/runs\" }";

#[tokio::test]
async fn services_outlive_a_killed_host_and_are_taken_over_not_started_twice() -> Result<()> {
    let turns = script(&[&shell("true"), END, &shell("wc -l < runs"), END]);
    let (mut host, session) = declared(COUNTED, turns, None).await?;
    turn(&host, session).await?;
    host.kill()?;
    host.launch().await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events).last().map(String::as_str), Some("1\n"), "{events:#?}");
    assert_eq!(states(&events, "web"), [ServiceState::Starting, ServiceState::Ready], "{events:#?}");
    let view = listed(&host, session, "web").await?;
    assert_eq!((view.service.map(|service| service.state), view.exit_status), (Some(ServiceState::Ready), None));
    Ok(())
}

#[tokio::test]
async fn what_ended_while_no_host_was_there_is_told_by_the_next_one() -> Result<()> {
    let services = "[web]\ncommand = \"until [ -e /workspace/go ]; do sleep 0.02; done; exit 5\"\nrestart = \"never\"";
    let turns = script(&[&shell("true"), END, &shell("true"), END]);
    let (mut host, session) = declared(services, turns, None).await?;
    turn(&host, session).await?;
    let path = format!("/v1/sessions/{session}/processes");
    let build = json!({ "name": "build", "command": "until [ -e /workspace/go ]; do sleep 0.02; done; exit 6" });
    host.client.ok(Method::POST, &path, Some(build)).await?;
    host.kill()?;
    std::fs::write(super::kill::find_workspace(&host)?.join("go"), "")?;
    // Whether they have ended when the next host comes is a matter of chance; it tells either way, once.
    host.launch().await?;
    host.client
        .wait_for(session, "end of a command", |body| matches!(body, EventBody::ProcessEnded { exit_status: 6, .. }))
        .await?;
    wait_for_state(&host, session, "web", ServiceState::Failed).await?;
    let events = turn(&host, session).await?;
    let words = told(&events);
    assert_eq!(words.matches("`build` ended by itself with status 6").count(), 1, "{words}");
    assert_eq!(words.matches("`web` is failed: it ended with status 5").count(), 1, "{words}");
    Ok(())
}

#[tokio::test]
async fn a_restored_sandbox_starts_its_services_anew() -> Result<()> {
    let turns = script(&[&shell("true"), END, &shell("wc -l < runs"), END]);
    let (mut host, session) = declared(COUNTED, turns, None).await?;
    turn(&host, session).await?;
    let launcher = super::clean_up::launcher_pid(&host)?;
    host.kill()?;
    super::clean_up::kill_process(launcher)?;
    host.launch().await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events).last().map(String::as_str), Some("2\n"), "{events:#?}");
    let twice = [ServiceState::Starting, ServiceState::Ready].repeat(2);
    assert_eq!(states(&events, "web"), twice, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_clean_stop_ends_services_in_reverse_order_and_lets_them_finish() -> Result<()> {
    let service = |name: &str, after: &str| {
        format!(
            "[{name}]\ncommand = \"trap 'sleep 0.2; echo {name} >> /workspace/order; exit' TERM; while :; do sleep 0.02; done\"\n{after}\n"
        )
    };
    let services =
        [service("cache", "after = [\"database\"]"), service("database", ""), service("web", "after = [\"cache\"]")];
    let turns = script(&[&shell("true"), END, &shell("cat order"), END]);
    let (mut host, session) = declared(&services.concat(), turns, None).await?;
    turn(&host, session).await?;
    assert_eq!(host.stop()?, Some(0), "{}", host.log());
    host.launch().await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events).last().map(String::as_str), Some("web\ncache\ndatabase\n"), "{events:#?}");
    Ok(())
}
