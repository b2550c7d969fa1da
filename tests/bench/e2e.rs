//! From a prompt to the first model request, seen by a client of the API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ostler_protocol::{EventBody, SessionId};
use ostler_tests::script::script;
use ostler_tests::{Client, Host, HostOptions, Repository};

use crate::record::Record;

const COLD: usize = 15;
const READY: usize = 40;

/// Sends a prompt and reads the stream until `wanted`; returns the time from sending to each of the two.
async fn prompt_until(client: &Client, session: SessionId, after: u64) -> Result<(Duration, Option<Duration>)> {
    let url = format!("{}/v1/sessions/{session}/events?after={after}", client.url);
    let mut stream = reqwest::Client::new()
        .get(url)
        .bearer_auth(&client.token)
        .header("accept", "text/event-stream")
        .send()
        .await?
        .error_for_status()?;
    let began = Instant::now();
    let sent = client.prompt(session, "go");
    let read = async {
        let (mut model, mut workspace, mut text) = (None, None, String::new());
        while let Some(piece) = stream.chunk().await? {
            text.push_str(&String::from_utf8_lossy(&piece));
            if model.is_none() && text.contains("\"model_requested\"") {
                model = Some(began.elapsed());
            }
            if workspace.is_none() && text.contains("\"workspace_ready\"") {
                workspace = Some(began.elapsed());
            }
            if text.contains("\"publish_skipped\"")
                && (workspace.is_some() || !text.contains("\"workspace_requested\""))
            {
                break;
            }
        }
        anyhow::Ok((model.context("no model request")?, workspace))
    };
    let (accepted, seen) = tokio::join!(sent, tokio::time::timeout(ostler_tests::client::PATIENCE, read));
    accepted?;
    seen?
}

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    let turns: Vec<&str> = std::iter::repeat_n("say = \"Done.\"", READY + 1).collect();
    let host = Host::start(HostOptions { script: script(&turns), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a"), ("AGENTS.md", "Be quick.")])?.push_to(&host.client).await?;
    let (mut cold, mut workspace) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..COLD {
        let session = host.client.create_session("demo").await?.id;
        let (model, ready) = prompt_until(&host.client, session, 1).await?;
        cold.push(model);
        workspace.push(ready.context("no workspace")?);
        last = Some(session);
    }
    let session = last.context("a session")?;
    let mut ready = Vec::new();
    for _ in 0..READY {
        let events = host.client.wait_until_idle(session).await?;
        anyhow::ensure!(events.iter().any(|event| matches!(event.body, EventBody::WorkspaceReady { .. })));
        let head = events.last().map_or(0, |event| event.seq);
        ready.push(prompt_until(&host.client, session, head).await?.0);
    }
    Ok(vec![
        Record::new("e2e", "prompt_to_first_model_request.cold", "p50 <= 400", &cold),
        Record::new("e2e", "prompt_to_first_model_request.ready", "p50 <= 30", &ready),
        Record::new("e2e", "prompt_to_workspace_ready.cold", "reported", &workspace),
    ])
}
