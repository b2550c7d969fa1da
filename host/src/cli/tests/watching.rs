//! Watching a session of a host that is a table in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ostler_protocol::event::TurnOutcome;
use ostler_protocol::{ErrorCode, EventBody, PromptId, SessionId, TurnId};

use super::bench::*;
use crate::api::ApiLimits;
use crate::api::tests::fake::*;
use crate::cli::CliError;
use crate::cli::feed::{Feed, Patience};
use crate::cli::follow::{Until, View, follow};

const QUICK: Patience = Patience { attempts: 3, first: Duration::from_millis(5), longest: Duration::from_millis(50) };

fn session() -> SessionId {
    SESSION.parse().unwrap()
}

/// A prompt that ended so, in a log.
fn ended(fake: &Fake, outcome: TurnOutcome) -> PromptId {
    let (turn, prompt) = (TurnId::generate(), PromptId::generate());
    fake.append(EventBody::PromptSubmitted { prompt, text: "go".into(), author: ada(), request: None });
    fake.append(EventBody::TurnStarted { turn, prompt });
    fake.append(EventBody::TurnFinished { turn, outcome });
    prompt
}

#[tokio::test]
async fn watching_ends_when_the_prompt_is_published_and_not_before() {
    let host = TestHost::new();
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let prompt = ended(&host.fake, TurnOutcome::Done);
    let watching = tokio::spawn(async move {
        let (mut printer, out, _) = printer();
        let result =
            follow(Feed::new(&client(address), session(), QUICK), Until::Prompt(prompt), View::Json, &mut printer)
                .await;
        (result, out.text())
    });
    host.fake.notice("still publishing");
    host.fake.append(EventBody::PublishSkipped { reason: "no change".into(), failure: None });
    host.fake.notice("of no interest");
    let (result, text) = watching.await.unwrap();
    result.unwrap();
    let kinds: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["prompt_submitted", "turn_started", "turn_finished", "notice", "publish_skipped"]);
}

#[tokio::test]
async fn watching_until_idle_tells_how_the_last_prompt_ended() {
    let host = TestHost::new();
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let (mut printer, _, _) = printer();
    let idle = async |printer: &mut _| {
        follow(Feed::new(&client(address), session(), QUICK), Until::Idle, View::of(false, printer), printer).await
    };
    idle(&mut printer).await.unwrap();
    ended(&host.fake, TurnOutcome::Failed { code: ErrorCode::ModelFailed, message: "script_exhausted".into() });
    let error = idle(&mut printer).await.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (7, "the turn failed: script_exhausted"));
    ended(&host.fake, TurnOutcome::Done);
    host.fake.append(EventBody::PublishSkipped { reason: "no change".into(), failure: None });
    idle(&mut printer).await.unwrap();
}

#[tokio::test]
async fn a_dropped_connection_is_resumed_with_a_notice_and_without_a_double() {
    let fake = Arc::new(Fake::default());
    let first = TestHost::over(fake.clone(), Router::new(), ApiLimits::default());
    let (address, server) = first.listen("127.0.0.1:0").await;
    fake.notice("one");
    let prompt = PromptId::generate();
    let (mut printer, out, err) = printer();
    let watching = tokio::spawn(async move {
        follow(
            Feed::new(&client(address), session(), QUICK),
            Until::Prompt(prompt),
            View::of(false, &printer),
            &mut printer,
        )
        .await
    });
    while !out.text().contains("one") {
        tokio::task::yield_now().await;
    }
    first.stopping.cancel();
    server.await.unwrap().unwrap();
    let second = TestHost::over(fake.clone(), Router::new(), ApiLimits::default());
    let (_, _server) = second.listen(&address.to_string()).await;
    let turn = TurnId::generate();
    fake.notice("two");
    fake.append(EventBody::TurnStarted { turn, prompt });
    fake.append(EventBody::TurnFinished { turn, outcome: TurnOutcome::Stopped });
    assert_eq!(watching.await.unwrap().unwrap_err().exit_code(), 7);
    assert_eq!(out.text(), "note: one\nnote: two\n✗ turn stopped\n");
    assert!(
        err.text().starts_with("warning: ") && err.text().contains("trying again in 5 ms (1 of 3)"),
        "{}",
        err.text()
    );
}

#[tokio::test]
async fn a_host_that_does_not_come_back_is_given_up() {
    let host = TestHost::new();
    let (address, server) = host.listen("127.0.0.1:0").await;
    let (mut printer, out, err) = printer();
    host.fake.notice("one");
    let watching = tokio::spawn(async move {
        follow(
            Feed::new(&client(address), session(), QUICK),
            Until::Interrupted,
            View::of(false, &printer),
            &mut printer,
        )
        .await
    });
    while !out.text().contains("one") {
        tokio::task::yield_now().await;
    }
    host.stopping.cancel();
    server.await.unwrap().unwrap();
    let error = watching.await.unwrap().unwrap_err();
    assert!(matches!(error, CliError::ConnectionLost { attempts: 3, .. }), "{error}");
    assert_eq!(error.exit_code(), 6);
    assert!(error.hint().unwrap().contains(&format!("ostler attach {SESSION}")));
    assert_eq!(err.text().matches("trying again").count(), 3);
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    let host = TestHost::new();
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let (mut printer, _, err) = printer();
    let unknown = SessionId::generate();
    let view = View::of(false, &printer);
    let error = follow(Feed::new(&client(address), unknown, QUICK), Until::Idle, view, &mut printer).await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named_with_the_way_to_start_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (mut printer, _, err) = printer();
    let view = View::of(false, &printer);
    let error =
        follow(Feed::new(&client(address), session(), QUICK), Until::Idle, view, &mut printer).await.unwrap_err();
    printer.error(&error);
    assert_eq!(
        err.text(),
        format!("error: the host is not running at http://{address}/\nhint: start it with `ostler up`\n")
    );
    assert_eq!(error.exit_code(), 6);
}
