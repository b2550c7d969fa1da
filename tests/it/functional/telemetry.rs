//! What a host tells about itself: the log in files, metrics, traces.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::post;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use reqwest::Method;

/// A host that has done one turn with one tool.
async fn after_a_turn(options: HostOptions) -> Result<(Host, ostler_protocol::SessionId)> {
    let turns = script(&[&shell("echo new > b"), END]);
    let host = Host::start(HostOptions { script: turns, ..options }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "make b").await?;
    host.client.wait_until_idle(session).await?;
    Ok((host, session))
}

#[tokio::test]
async fn metrics_count_what_happened_and_want_the_token() -> Result<()> {
    let (host, _) = after_a_turn(HostOptions::default()).await?;
    let (status, text) = host.client.send(Method::GET, "/metrics", None).await?;
    assert_eq!(status, 200);
    let text = text.as_str().context("text")?;
    for line in [
        "ostler_sessions_total 1",
        "ostler_prompts_total 1",
        "ostler_turns_total{outcome=\"done\"} 1",
        "ostler_turns_active 0",
        "ostler_tool_calls_total{outcome=\"done\",tool=\"shell\"} 1",
        "ostler_workspaces_total{outcome=\"ready\"} 1",
        "ostler_pull_requests_total{outcome=\"opened\"} 1",
        "gen_ai_client_operation_duration_seconds_count{gen_ai_provider_name=\"scripted\",gen_ai_request_model=\"test\"} 2",
        "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_response_status_code=\"201\",http_route=\"/v1/sessions\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
    let stranger = reqwest::Client::new().get(format!("{}/metrics", host.client.url)).send().await?;
    assert_eq!(stranger.status(), 401);
    Ok(())
}

#[tokio::test]
async fn the_log_is_in_files_and_is_shown_by_session_and_request_without_a_host() -> Result<()> {
    let (mut host, session) = after_a_turn(HostOptions::default()).await?;
    let (_, refusal) = host.client.send(Method::GET, "/v1/sessions/ses_x", None).await?;
    let request = refusal["request_id"].as_str().context("a request id")?.to_owned();
    host.stop()?;
    let logs = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = host.command(&["logs", "--data"])?;
        let output = command.arg(host.data()).args(arguments).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    };
    let (status, found) = logs(&["--request", &request])?;
    assert_eq!(status, Some(0));
    assert!(found.lines().count() == 1 && found.contains("refused") && found.contains("status=400"), "{found}");
    let (_, found) = logs(&["--session", &session.to_string(), "--json"])?;
    let line: serde_json::Value = serde_json::from_str(found.lines().next().context("a line")?)?;
    assert!(line["timestamp"].is_string() && found.lines().all(|line| line.contains(&session.to_string())), "{found}");
    let (_, last) = logs(&["--lines", "1"])?;
    assert_eq!(last.lines().count(), 1, "{last}");
    let (status, words) = logs(&["--level", "loud"])?;
    assert_eq!(status, Some(2), "{words}");
    let empty = tempfile::tempdir()?;
    let output = host.command(&["logs", "--data"])?.arg(empty.path()).output()?;
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no log in"));
    Ok(())
}

/// What was sent to a collector: paths and bodies.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that keeps what is sent to it.
async fn collector() -> Result<(String, Received)> {
    let received: Received = Arc::default();
    let keep = |State(received): State<Received>, uri: Uri, body: Bytes| async move {
        received.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((uri.path().to_owned(), body.to_vec()));
    };
    let router = Router::new()
        .route("/v1/traces", post(keep))
        .route("/v1/metrics", post(keep))
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((url, received))
}

// The collector must be served while the test waits for the host's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_and_metrics_reach_a_collector_where_one_is_named() -> Result<()> {
    let (url, received) = collector().await?;
    let arguments = vec!["--otlp-endpoint".to_owned(), url];
    let (mut host, session) = after_a_turn(HostOptions { arguments, ..HostOptions::default() }).await?;
    // What is left is sent when the host ends.
    assert_eq!(host.stop()?, Some(0), "{}", host.log());
    let received = received.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sent = |path: &str, text: &str| {
        received
            .iter()
            .any(|(found, body)| found == path && body.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    for span in ["request", "chat", "hooks", "execute_tool", "publish", "workspace"] {
        assert!(sent("/v1/traces", span), "no span `{span}`");
    }
    assert!(sent("/v1/traces", &session.to_string()), "spans name their session");
    assert!(sent("/v1/metrics", "ostler.turns"));
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_nothing() -> Result<()> {
    let arguments = vec!["--otlp-endpoint".to_owned(), "http://127.0.0.1:1".to_owned()];
    let (mut host, _) = after_a_turn(HostOptions { arguments, ..HostOptions::default() }).await?;
    // `stop` fails by itself where the host does not end in time.
    assert_eq!(host.stop()?, Some(0), "{}", host.log());
    Ok(())
}

#[tokio::test]
async fn a_host_whose_standard_error_is_on_a_full_disk_works_on() -> Result<()> {
    let options = HostOptions { full_stderr: true, ..HostOptions::default() };
    let (host, session) = after_a_turn(options).await?;
    let view = host.client.session(session).await?;
    assert!(view.pull_request.is_some(), "{view:?}");
    Ok(())
}
