//! Tools in a real sandbox: limits, long output, paths.

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::event::{Blob, ToolOutcome};
use ostler_tests::Host;
use ostler_tests::script::{END, script, shell};
use reqwest::Method;

/// Runs one conversation in a new session and returns outcome, output and blob of every call.
async fn results(
    turns: String,
) -> Result<(Host, ostler_protocol::SessionId, Vec<(ToolOutcome, String, Option<Blob>)>)> {
    let (host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let results = events.into_iter().filter_map(|event| match event.body {
        EventBody::ToolFinished { outcome, output, blob, .. } => Some((outcome, output, blob)),
        _ => None,
    });
    Ok((host, session, results.collect()))
}

#[tokio::test]
async fn a_path_outside_the_workspace_is_refused_by_every_file_tool() -> Result<()> {
    let paths = ["../etc/passwd", "/etc/passwd", "link/passwd", "/workspace/../etc/passwd"];
    let calls: Vec<String> = paths
        .iter()
        .flat_map(|path| {
            [
                format!("{{ tool = \"read_file\", arguments = {{ path = \"{path}\" }} }}"),
                format!("{{ tool = \"write_file\", arguments = {{ path = \"{path}\", content = \"x\" }} }}"),
                format!("{{ tool = \"search\", arguments = {{ pattern = \"root\", path = \"{path}\" }} }}"),
            ]
        })
        .collect();
    let attack = format!("say = \"out\"\ncall = [{}]", calls.join(", "));
    let (_host, _, results) =
        results(script(&[&shell("ln -s /etc link; cat /etc/passwd | head -1"), &attack, END])).await?;
    assert_eq!(results.len(), 1 + 3 * paths.len());
    for (outcome, output, _) in &results[1..] {
        assert_eq!(*outcome, ToolOutcome::Failed, "{output}");
        assert!(!output.contains("root:x"), "{output}");
    }
    Ok(())
}

#[tokio::test]
async fn a_long_output_is_kept_whole_beside_its_head_and_tail() -> Result<()> {
    let (host, session, results) = results(script(&[&shell("echo BEGIN; seq 1 40000; echo END"), END])).await?;
    let (outcome, output, blob) = &results[0];
    assert_eq!(*outcome, ToolOutcome::Done);
    assert!(output.starts_with("BEGIN") && output.trim_end().ends_with("END") && output.len() < 20_000);
    let Some(blob) = blob else { panic!("a blob is named") };
    let path = format!("/v1/sessions/{session}/blobs/{}", blob.digest);
    let (status, body) = host.client.send(Method::GET, &path, None).await?;
    assert!(status.is_success());
    let whole = body.as_str().map_or_else(|| body.to_string(), ToOwned::to_owned);
    assert_eq!(whole.len() as u64, blob.bytes);
    assert!(whole.contains("\n20000\n"));
    Ok(())
}

#[tokio::test]
async fn a_command_over_its_limits_is_ended_and_says_which() -> Result<()> {
    let turns = script(&[
        "say = \"limits\"\ncall = [\n\
         { tool = \"shell\", arguments = { command = \"echo begun; sleep 4000\", timeout_ms = 300 } },\n\
         { tool = \"shell\", arguments = { command = \"yes\" } }]",
        &format!(
            "expect = [{{ call = 0, outcome = \"timed_out\", pattern = \"begun\" }}, {{ call = 1, outcome = \"output_limit\" }}]\n{END}"
        ),
    ]);
    let (_host, _, results) = results(turns).await?;
    assert_eq!(
        results.iter().map(|(outcome, ..)| *outcome).collect::<Vec<_>>(),
        [ToolOutcome::TimedOut, ToolOutcome::OutputLimit]
    );
    Ok(())
}

#[tokio::test]
async fn a_command_in_the_background_goes_on_after_its_turn_and_can_be_read_and_ended() -> Result<()> {
    let call =
        |tool: &str, arguments: &str| format!("say = \"x\"\ncall = [{{ tool = \"{tool}\", arguments = {arguments} }}]");
    let command = "echo begun; while [ ! -e stop ]; do sleep 0.01; done; echo seen; touch seen; exec sleep 1000";
    let turns = script(&[
        &call("shell", &format!("{{ command = '''{command}''', background = true, name = \"web\" }}")),
        &call("shell_output", "{}"),
        &format!("expect = [{{ call = 0, outcome = \"done\", pattern = \"web +running +echo begun\" }}]\n{END}"),
        // A second prompt, in a turn of its own.
        &shell("touch stop; until [ -e seen ]; do sleep 0.01; done"),
        &call("shell_output", "{ name = \"web\" }"),
        &format!(
            "expect = [{{ call = 0, outcome = \"done\", pattern = \"running; bytes 0 to 11 of 11.\\nbegun\\nseen\" }}]\n{}",
            call("shell_stop", "{ name = \"web\" }")
        ),
        // The name of one that was stopped is free.
        &format!(
            "expect = [{{ call = 0, outcome = \"done\", pattern = \"has ended with status 143\" }}]\n{}",
            call("shell", "{ command = \"exec sleep 1001\", background = true, name = \"web\" }")
        ),
        &call("shell_output", "{}"),
        &format!("expect = [{{ call = 0, outcome = \"done\", pattern = \"^web +running +exec sleep 1001$\" }}]\n{END}"),
    ]);
    let (host, session) = Host::with_session(turns).await?;
    for _ in 0..2 {
        host.client.prompt(session, "go").await?;
        host.client.wait_until_idle(session).await?;
    }
    let events = host.client.wait_until_idle(session).await?;
    let ended: Vec<ToolOutcome> = events
        .into_iter()
        .filter_map(|event| match event.body {
            EventBody::ToolFinished { outcome, output, .. } => {
                assert_eq!(outcome, ToolOutcome::Done, "{output}");
                Some(outcome)
            }
            _ => None,
        })
        .collect();
    assert_eq!(ended.len(), 7);
    Ok(())
}
