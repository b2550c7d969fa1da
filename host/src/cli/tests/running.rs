//! `run` from a repository on disk to an exit code, over real HTTP and real git.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use clap::Parser;
use ostler_protocol::api::{PromptAccepted, SubmitPrompt};
use ostler_protocol::event::{Person, TurnOutcome};
use ostler_protocol::{DecisionId, EventBody, PullRequestId, TurnId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::bench::*;
use crate::api::ApiLimits;
use crate::api::tests::fake::*;
use crate::cli::args::{self, Arguments};
use crate::cli::{CliError, plugins, prompt, run};

/// Serves the bare repositories in a folder with git's own CGI program.
async fn smart_http(root: PathBuf, request: Request) -> Response<Body> {
    let (request, body) = request.into_parts();
    let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "tester")
        .env("PATH_INFO", request.uri.path())
        .env("QUERY_STRING", request.uri.query().unwrap_or(""))
        .env("REQUEST_METHOD", request.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let body = to_bytes(body, 1 << 24).await.unwrap();
    child.stdin.take().unwrap().write_all(&body).await.unwrap();
    let output = child.wait_with_output().await.unwrap().stdout;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let headers: HashMap<String, String> = String::from_utf8_lossy(&output[..split])
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let status = headers.get("status").map_or(StatusCode::OK, |status| status[..3].parse().unwrap());
    let mut response = Response::builder().status(status);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "status") {
        response = response.header(name, value);
    }
    response.body(Body::from(output[split + 4..].to_vec())).unwrap()
}

/// A host whose repository `demo` is real, and that answers every prompt with `ending`.
async fn host(ending: Vec<EventBody>) -> (TestHost, std::net::SocketAddr, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let bare = root.path().join("demo.git");
    git(root.path(), &["init", "--quiet", "--bare", &bare.to_string_lossy()]);
    let path = root.path().to_owned();
    let router = Router::new().fallback(move |request: Request| smart_http(path.clone(), request));
    let host = TestHost::over(Arc::new(Fake::default()), router, ApiLimits::default());
    let (address, _) = host.listen("127.0.0.1:0").await;
    let fake = host.fake.clone();
    tokio::spawn(async move {
        let mut prompts = fake.prompts.subscribe();
        let prompt = prompts.wait_for(|prompts| !prompts.is_empty()).await.unwrap()[0].0;
        let turn = TurnId::from_ulid(ulid::Ulid::from_parts(1, 1));
        fake.append(EventBody::TurnStarted { turn, prompt });
        ending.into_iter().for_each(|body| fake.append(body));
    });
    (host, address, root)
}

fn turn_finished(outcome: TurnOutcome) -> EventBody {
    EventBody::TurnFinished { turn: TurnId::from_ulid(ulid::Ulid::from_parts(1, 1)), outcome }
}

fn opened() -> EventBody {
    EventBody::PullRequestOpened {
        pull_request: PullRequestId::generate(),
        number: 1,
        title: "Make it so".into(),
        url: "http://host/pr/1".into(),
        decision: DecisionId::generate(),
    }
}

fn arguments(words: &[&str]) -> args::Run {
    let words = ["ostler", "run"].iter().chain(words);
    match Arguments::try_parse_from(words).unwrap().command {
        args::Command::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn run_brings_the_commits_and_shows_the_pull_request() {
    let (host, address, root) = host(vec![turn_finished(TurnOutcome::Done), opened()]).await;
    let (_parent, folder) = repository("Demo");
    git(&folder, &["config", "user.name", "Configured Person"]);
    git(&folder, &["config", "user.email", "configured@example.org"]);
    std::fs::write(folder.join("new"), "x").unwrap();
    let (mut printer, out, err) = printer();
    let run_it = arguments(&["--repo", &folder.to_string_lossy(), "make it so"]);
    run::execute(run_it, &client(address), &mut printer).await.unwrap();

    assert_eq!(git(&root.path().join("demo.git"), &["rev-parse", "main"]), git(&folder, &["rev-parse", "main"]));
    let created = host.fake.created.lock().unwrap().remove(0);
    assert_eq!((created.repository.as_str(), created.branch.as_deref()), ("demo", Some("main")));
    assert_eq!(created.author, Person { name: "Configured Person".into(), email: "configured@example.org".into() });
    assert_eq!(host.fake.prompts.borrow()[0].1.text, "make it so");
    assert!(out.text().contains("pull request #1 is open: Make it so\n  http://host/pr/1\n"), "{}", out.text());
    assert!(err.text().starts_with("warning: 1 uncommitted change stay"), "{}", err.text());
}

/// Passes connections on to `to`, but takes the first answer to a prompt away and breaks the connection instead.
async fn breaking(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let unbroken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let unbroken = unbroken.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    tokio::select! {
                        read = near.read(&mut buffer) => {
                            let Ok(count @ 1..) = read else { return };
                            asked.extend_from_slice(&buffer[..count]);
                            far.write_all(&buffer[..count]).await.unwrap();
                        }
                        answered = far.readable() => {
                            answered.unwrap();
                            let prompt = String::from_utf8_lossy(&asked).contains("/prompts HTTP");
                            if prompt && unbroken.swap(false, std::sync::atomic::Ordering::SeqCst) {
                                return;
                            }
                            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_prompt_whose_answer_was_lost_is_repeated_and_given_once() {
    let host = TestHost::new();
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let client = client(breaking(address).await);
    let path = ["sessions", SESSION, "prompts"];
    let prompt = SubmitPrompt { text: "go".into(), author: None };
    let accepted: PromptAccepted = client.post_once("submit the prompt", &path, &prompt).await.unwrap();
    let prompts = host.fake.prompts.borrow().clone();
    assert_eq!(prompts.len(), 1, "{prompts:?}");
    assert_eq!(prompts[0].0, accepted.prompt);
}

#[tokio::test]
async fn run_fails_as_the_agent_failed() {
    let failed =
        TurnOutcome::Failed { code: ostler_protocol::ErrorCode::ModelFailed, message: "script_exhausted".into() };
    let (_host, address, _root) = host(vec![turn_finished(failed)]).await;
    let (_parent, folder) = repository("demo");
    let (mut printer, _, _) = printer();
    let run_it = arguments(&["--repo", &folder.to_string_lossy(), "--name", "A", "--email", "a@b", "go"]);
    let error = run::execute(run_it, &client(address), &mut printer).await.unwrap_err();
    assert_eq!(error.exit_code(), 7);
    assert!(error.to_string().contains("script_exhausted"));
}

#[tokio::test]
async fn an_error_before_the_push_changes_nothing_there() {
    let (host, address, root) = host(Vec::new()).await;
    let (_parent, folder) = repository("demo");
    let path = folder.to_string_lossy().into_owned();
    let person = ["--name", "A", "--email", "a@b"];
    for (words, code) in [
        (vec!["--repo", &path, "--branch", "nowhere", "go"], 3),
        (vec!["--repo", "/nonexistent", "go"], 3),
        (vec!["--repo", &path, "--repository", "../x", "go"], 3),
    ] {
        let (mut printer, _, _) = printer();
        let run_it = arguments(&[&words[..], &person].concat());
        let error = run::execute(run_it, &client(address), &mut printer).await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
    assert!(host.fake.created.lock().unwrap().is_empty());
    assert_eq!(git(&root.path().join("demo.git"), &["for-each-ref"]), "");
}

/// A host without anything real, and what a command printed that asked it.
async fn asked(
    ask: impl AsyncFnOnce(&crate::cli::client::Client, &mut crate::cli::output::Printer) -> Result<(), CliError>,
) -> (TestHost, String, String) {
    let host = TestHost::new();
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let (mut printer, out, err) = printer();
    ask(&client(address), &mut printer).await.unwrap();
    (host, out.text(), err.text())
}

#[tokio::test]
async fn plugins_are_listed_by_hook_and_those_that_are_missing_are_told() {
    let list = async |json: bool| {
        asked(async |client, printer| plugins::list(args::List { json }, client, printer).await).await
    };
    let (_, out, err) = list(false).await;
    insta::assert_snapshot!(out);
    assert_eq!(
        err,
        "warning: the host goes on without a plugin: plugin `old` cannot be loaded: it asks for contract 0^[[2J\n"
    );
    let (_, out, err) = list(true).await;
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((list["plugins"][0]["hooks"][0]["phase"].as_str(), err.as_str()), (Some("mutate"), ""));
}

fn prompt_arguments(session: &str, more: &[&str]) -> args::Prompt {
    let words = ["ostler", "prompt", session, "again", "--name", "A", "--email", "a@b"];
    match Arguments::try_parse_from(words.iter().chain(more)).unwrap().command {
        args::Command::Prompt(prompt) => prompt,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_further_prompt_is_sent_by_the_beginning_of_an_id_and_its_ids_are_printed() {
    let send = async |more: &[&str]| {
        let prompt = prompt_arguments("ses_01jd", more);
        asked(async |client, printer| prompt::execute(prompt, client, printer).await).await
    };
    let (host, out, _) = send(&["--no-wait"]).await;
    let (id, submitted) = host.fake.prompts.borrow()[0].clone();
    assert_eq!(out, format!("{id}\n"));
    let author = Person { name: "A".into(), email: "a@b".into() };
    assert_eq!((submitted.text.as_str(), submitted.author), ("again", Some(author)));
    let (host, out, _) = send(&["--no-wait", "--json"]).await;
    let id = host.fake.prompts.borrow()[0].0;
    assert_eq!(out, format!("{{\"session\":\"{SESSION}\",\"prompt\":\"{id}\",\"seq\":1}}\n"));
}

#[tokio::test]
async fn a_further_prompt_is_watched_from_itself_on() {
    let (host, address, _root) = host(vec![turn_finished(TurnOutcome::Done), opened()]).await;
    host.fake.notice("of before");
    let (mut printer, out, _) = printer();
    prompt::execute(prompt_arguments(SESSION, &[]), &client(address), &mut printer).await.unwrap();
    assert!(out.text().contains("> again") && out.text().contains("pull request #1 is open"), "{}", out.text());
    assert!(!out.text().contains("of before"), "{}", out.text());
}

#[tokio::test]
async fn a_missing_name_is_asked_for_in_gits_words() {
    let (_parent, folder) = repository("demo");
    git(&folder, &["config", "user.name", ""]);
    git(&folder, &["config", "user.email", "configured@example.org"]);
    let (mut printer, _, _) = printer();
    let run_it = arguments(&["--repo", &folder.to_string_lossy(), "go"]);
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let error = run::execute(run_it, &client(nowhere), &mut printer).await.unwrap_err();
    assert!(matches!(error, CliError::NoAuthor { key: "user.name", .. }), "{error}");
    assert!(error.hint().unwrap().contains("git config --global user.name"));
}
