//! Wrong input gets an error that names what, why and what to do, and leaves nothing half-made.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::api::{MAX_PROMPT, SessionStatus};
use ostler_protocol::event::TurnOutcome;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
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
    let common = ["--model", "scripted", "--script"];
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

/// A small tmpfs in place of a folder, with the folder's content.
struct SmallDisk {
    folder: std::path::PathBuf,
}

impl SmallDisk {
    fn over(folder: &std::path::Path) -> Result<Self> {
        let copy = tempfile::tempdir()?;
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| -> Result<()> {
            anyhow::ensure!(std::process::Command::new(program).args(arguments).status()?.success(), "{program}");
            Ok(())
        };
        let owner = fs::metadata(folder)?;
        run("cp", &["-a".as_ref(), folder.join(".").as_os_str(), copy.path().as_os_str()])?;
        let words = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let words: Vec<&std::ffi::OsStr> = words.iter().map(AsRef::as_ref).chain([folder.as_os_str()]).collect();
        run("mount", &words)?;
        let disk = Self { folder: folder.to_owned() };
        run("cp", &["-a".as_ref(), copy.path().join(".").as_os_str(), folder.as_os_str()])?;
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(folder, Some(owner.uid()), Some(owner.gid()))?;
        Ok(disk)
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.join("filler")
    }

    /// Takes all room but a few pages.
    fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = fs::File::create(self.filler())?;
        while file.write_all(&[0; 4096]).is_ok() {}
        let size = file.metadata()?.len();
        file.set_len(size.saturating_sub(8192))?;
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l".as_ref(), self.folder.as_os_str()]).status();
    }
}
