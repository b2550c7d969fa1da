//! Wrong input gets an error that names what, why and what to do, and leaves nothing half-made.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::api::{MAX_PROMPT, SessionStatus};
use ostler_protocol::event::TurnOutcome;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository, SmallDisk};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

async fn host_with(turns: String) -> Result<Host> {
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    Ok(host)
}

fn author() -> Value {
    json!({ "name": "Test Person", "email": "person@example.org" })
}

#[tokio::test]
async fn unknown_repositories_and_branches_are_named_with_what_there_is() -> Result<()> {
    let host = host_with(script(&[END])).await?;
    for (body, words) in [
        (json!({ "repository": "nope", "author": author() }), ["nope", "demo"]),
        (json!({ "repository": "demo", "branch": "nope", "author": author() }), ["nope", "main"]),
    ] {
        let (status, error) = host.client.send(Method::POST, "/v1/sessions", Some(body)).await?;
        assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    assert_eq!(host.client.ok(Method::GET, "/v1/sessions", None).await?["sessions"], json!([]));
    Ok(())
}

#[tokio::test]
async fn malformed_requests_get_a_4xx_that_says_why_and_change_nothing() -> Result<()> {
    let host = host_with(script(&[END])).await?;
    let session = host.client.create_session("demo").await?.id;
    let prompts = format!("/v1/sessions/{session}/prompts");
    for (path, body, code) in [
        ("/v1/sessions", json!({ "repository": "../x", "author": author() }), "bad_request"),
        ("/v1/sessions", json!({ "repository": "demo", "author": { "name": "", "email": "a@b" } }), "bad_request"),
        ("/v1/sessions", json!({ "repository": "demo", "author": author(), "colour": "red" }), "bad_request"),
        ("/v1/sessions", json!({ "repository": "demo", "author": author(), "model": "nope" }), "not_found"),
        (prompts.as_str(), json!({ "text": "  " }), "bad_request"),
        (prompts.as_str(), json!({ "text": 7 }), "bad_request"),
        (prompts.as_str(), json!({ "text": "x".repeat(MAX_PROMPT + 1) }), "too_large"),
        ("/v1/sessions/ses_nope/prompts", json!({ "text": "x" }), "bad_request"),
        ("/v1/sessions/ses_01jd3kq4v5w6x7y8z9a0b1c2d3/prompts", json!({ "text": "x" }), "not_found"),
    ] {
        let (status, error) = host.client.send(Method::POST, path, Some(body.clone())).await?;
        assert!(status.is_client_error(), "{path}: {status} {error}");
        assert_eq!(error["code"], code, "{path}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
    }
    let raw = reqwest::Client::new().post(format!("{}{prompts}", host.client.url)).bearer_auth(&host.client.token);
    let raw = raw.header("content-type", "application/json").body("{\"text\": ").send().await?;
    assert_eq!(raw.status(), StatusCode::BAD_REQUEST);
    assert_eq!(host.client.events(session).await?.len(), 1, "only its creation is in the log");
    Ok(())
}

async fn failure(turns: String) -> Result<(Host, String)> {
    let host = host_with(turns).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Failed, "{events:#?}");
    let Some(EventBody::TurnFinished { outcome: TurnOutcome::Failed { message, .. }, .. }) =
        events.last().map(|event| event.body.clone())
    else {
        panic!("{events:#?}")
    };
    Ok((host, message))
}

#[tokio::test]
async fn a_script_that_ends_early_fails_the_turn() -> Result<()> {
    let (_host, message) = failure(script(&[&shell("true")])).await?;
    assert!(message.contains("script_exhausted"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_script_that_expects_otherwise_fails_the_turn_and_shows_reality() -> Result<()> {
    let wrong = format!("expect = [{{ call = 0, exit_status = 3 }}]\n{END}");
    let (_host, message) = failure(script(&[&shell("echo really; exit 1"), &wrong])).await?;
    assert!(message.contains("exit status 3") && message.contains("really"), "{message}");
    Ok(())
}

/// Runs `ostler up` to its end; it must not start.
fn up(folder: &std::path::Path, arguments: &[&str]) -> Result<Output> {
    let mut command = std::process::Command::new(ostler_tests::host::binary()?);
    command.args(["up", "--data"]).arg(folder.join("data")).args(arguments);
    command.env("OSTLER_RUNTIME_DIR", folder.join("run")).env("NO_COLOR", "1");
    Ok(command.output()?)
}

fn refused(output: &Output, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("error: "), "{error}");
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
}

fn entries(folder: &std::path::Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Command lines that name a path.
fn processes_with(path: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // A process may end while it is looked at.
        let Ok(command) = fs::read(entry?.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(path) {
            found.push(command);
        }
    }
    Ok(found)
}

fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir()?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

#[tokio::test]
async fn a_taken_port_a_bad_script_and_an_unknown_image_stop_the_start() -> Result<()> {
    let folder = folder()?;
    ostler_tests::host::copy_images(&folder.path().join("data"))?;
    let script_path = folder.path().join("script.toml");
    fs::write(&script_path, script(&[END]))?;
    let script_path = script_path.to_string_lossy();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let common = ["--model", "scripted/test", "--script"];
    let before = entries(&folder.path().join("data"))?;
    let run = |more: &[&str], script: &str| {
        let arguments: Vec<&str> = common.iter().copied().chain([script]).chain(more.iter().copied()).collect();
        up(folder.path(), &arguments)
    };
    refused(&run(&["--image", "base", "--listen", &address], &script_path)?, &[&address, "hint: "]);
    refused(&run(&["--image", "nope", "--listen", "127.0.0.1:0"], &script_path)?, &["nope", "base"]);
    refused(&run(&["--image", "base", "--listen", "127.0.0.1:0"], "/nonexistent.toml")?, &["/nonexistent.toml"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty)?;
    let empty = empty.to_string_lossy();
    let plugin = ["--image", "base", "--listen", "127.0.0.1:0", "--plugin", &empty];
    refused(&run(&plugin, &script_path)?, &["plugin", &empty]);
    assert_eq!(entries(&folder.path().join("data"))?, before, "a refused start makes nothing");
    assert!(!folder.path().join("run").exists(), "nor says that it is there");
    assert_eq!(processes_with(&folder.path().to_string_lossy())?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_does_not_load_stops_the_start_and_is_named() -> Result<()> {
    let options = HostOptions {
        script: script(&[END]),
        policy: Some("[[deny]]\ntool = \"shell\"\n".into()),
        ..HostOptions::default()
    };
    let Err(error) = Host::start(options).await else { panic!("a bad rules file must not be taken") };
    let error = error.to_string();
    assert!(error.contains("policy"), "{error}");
    Ok(())
}

#[tokio::test]
async fn without_root_the_start_is_refused_with_the_reason() -> Result<()> {
    let folder = folder()?;
    let copy = folder.path().join("ostler");
    fs::copy(ostler_tests::host::binary()?, &copy)?;
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["up", "--data"])
        .arg(folder.path().join("data"))
        .env("NO_COLOR", "1")
        .output()?;
    refused(&output, &["root", "hint: "]);
    assert!(!folder.path().join("data").exists(), "nothing half-made is left");
    Ok(())
}

/// A disk that is full under one part of a running host, after a session was made.
async fn host_on_full(folder: &str, turns: String) -> Result<(Host, ostler_protocol::SessionId, SmallDisk)> {
    let (mut host, session) = Host::with_session(turns).await?;
    host.stop()?;
    let small = SmallDisk::over(&host.data().join(folder))?;
    host.launch().await?;
    small.fill()?;
    Ok((host, session, small))
}

/// Why the last turn was not published.
fn skipped(events: &[ostler_protocol::Event]) -> String {
    let Some(EventBody::PublishSkipped { reason, failure: Some(_) }) = events.last().map(|event| &event.body) else {
        panic!("{events:#?}")
    };
    reason.clone()
}

#[tokio::test]
async fn a_full_disk_under_the_index_stops_no_session_and_the_pull_request_comes_with_the_next_prompt() -> Result<()> {
    // A description that finds no room in what the database has already taken of the disk.
    let long = format!("say = \"{}\"", "words ".repeat(40_000));
    let turns = script(&[&shell("echo work > work.txt"), &long, END]);
    let (mut host, _, small) = host_on_full("index", turns).await?;
    // The session's own log is what counts; lists are behind until there is room.
    let session = loop {
        let session = host.client.create_session("demo").await?.id;
        let listed = host.client.ok(Method::GET, "/v1/sessions", None).await?.to_string();
        if !listed.contains(&session.to_string()) {
            break session;
        }
        small.fill_to_the_brim()?;
    };
    host.client.prompt(session, "work").await?;
    let events = host.client.wait_until_idle(session).await?;
    let reason = skipped(&events);
    assert!(reason.contains("the branch is pushed") && reason.contains("full"), "{reason}");
    small.free()?;
    host.client.prompt(session, "again").await?;
    let events = host.client.wait_until_idle(session).await?;
    let opened = events.iter().filter(|event| matches!(event.body, EventBody::PullRequestOpened { .. })).count();
    assert_eq!(opened, 1, "{events:#?}");
    let listed = host.client.ok(Method::GET, "/v1/sessions", None).await?.to_string();
    assert!(listed.contains(&session.to_string()), "{listed}");
    host.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_under_the_forge_keeps_the_work_in_the_workspace_until_there_is_room() -> Result<()> {
    let turns = script(&[&shell("head -c 300000 /dev/urandom > work.bin"), END, END]);
    let (mut host, session, small) = host_on_full("repositories", turns).await?;
    host.client.prompt(session, "work").await?;
    let events = host.client.wait_until_idle(session).await?;
    let reason = skipped(&events);
    assert!(reason.contains("the work is still in the workspace"), "{reason}");
    small.free()?;
    host.client.prompt(session, "again").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert!(events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. })), "{events:#?}");
    host.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_turn_that_meets_a_full_disk_goes_on_by_itself_when_there_is_room() -> Result<()> {
    let long = shell("echo kept > kept.txt; sync; sleep 1; head -c 60000 /dev/zero | tr '\\0' x");
    let (mut host, session, small) = host_on_full("sessions", script(&[&long, END])).await?;
    small.free()?;
    host.client.prompt(session, "work").await?;
    host.client.wait_for_running_tool(session).await?;
    small.fill_to_the_brim()?;
    let deadline = std::time::Instant::now() + ostler_tests::client::PATIENCE;
    while !host.log().contains("the session sleeps") {
        anyhow::ensure!(std::time::Instant::now() < deadline, "the disk was never met: {}", host.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    small.free()?;
    let events = host.client.wait_until_idle(session).await?;
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.seq, number, "the log has no gaps");
    }
    let opened = events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. }));
    assert!(opened, "the work is published: {events:#?}");
    host.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_refuses_the_prompt_and_loses_nothing() -> Result<()> {
    let mut host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.stop()?;
    let sessions = host.data().join("sessions");
    let small = SmallDisk::over(&sessions)?;
    host.launch().await?;
    small.fill()?;
    let path = format!("/v1/sessions/{session}/prompts");
    let body = json!({ "text": "x".repeat(100_000) });
    let (status, error) = host.client.send(Method::POST, &path, Some(body)).await?;
    assert_eq!((status.as_u16(), &error["code"]), (507, &json!("no_space")), "{error}");
    // What there is can still be read, and asking again gets the same answer.
    assert_eq!(host.client.events(session).await?.len(), 1);
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle);
    let body = json!({ "text": "y".repeat(100_000) });
    let (status, error) = host.client.send(Method::POST, &path, Some(body)).await?;
    assert_eq!((status.as_u16(), &error["code"]), (507, &json!("no_space")), "{error}");
    small.free()?;
    host.client.prompt(session, "again").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    host.stop()?;
    Ok(())
}
