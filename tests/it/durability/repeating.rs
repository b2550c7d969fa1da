//! A request that is repeated with its key happens once, whatever became of the host in between.

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_tests::script::{END, script};
use ostler_tests::{Client, Host, HostOptions, Repository};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn session_on(repository: &str) -> Value {
    json!({ "repository": repository, "author": { "name": "Test Person", "email": "person@example.org" } })
}

async fn host_with_repository() -> Result<Host> {
    let host = Host::start(HostOptions { script: script(&[END, END]), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    Ok(host)
}

async fn sessions(client: &Client) -> Result<usize> {
    let list = client.ok(Method::GET, "/v1/sessions", None).await?;
    Ok(list["sessions"].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn a_session_and_a_prompt_that_are_asked_for_again_are_the_first_ones_even_after_a_kill() -> Result<()> {
    let mut host = host_with_repository().await?;
    let (status, first) = host.client.post_keyed("/v1/sessions", "key-a", &session_on("demo")).await?;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let path = format!("/v1/sessions/{}/prompts", first["id"].as_str().unwrap_or_default());
    let (status, accepted) = host.client.post_keyed(&path, "key-b", &json!({ "text": "go" })).await?;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    for restart in [false, true] {
        if restart {
            host.kill()?;
            // What the index knew is found again in the logs.
            std::fs::remove_dir_all(host.data().join("index"))?;
            host.launch().await?;
        }
        let (status, again) = host.client.post_keyed("/v1/sessions", "key-a", &session_on("demo")).await?;
        assert_eq!((status, &again["id"]), (StatusCode::CREATED, &first["id"]), "{again}");
        let again = host.client.post_keyed(&path, "key-b", &json!({ "text": "go" })).await?;
        assert_eq!(again, (StatusCode::ACCEPTED, accepted.clone()));
        for (path, key, body) in
            [("/v1/sessions", "key-a", session_on("other")), (&path, "key-b", json!({ "text": "stay" }))]
        {
            let (status, error) = host.client.post_keyed(path, key, &body).await?;
            assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{error}");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(key)), "{error}");
        }
    }
    assert_eq!(sessions(&host.client).await?, 1);
    let session = first["id"].as_str().unwrap_or_default().parse()?;
    let events = host.client.wait_until_idle(session).await?;
    let prompts = events.iter().filter(|event| matches!(event.body, EventBody::PromptSubmitted { .. })).count();
    assert_eq!(prompts, 1, "{events:#?}");
    host.client.prompt(session, "go").await?;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let prompts = events.iter().filter(|event| matches!(event.body, EventBody::PromptSubmitted { .. })).count();
    assert_eq!(prompts, 3, "without a key each request is one of its own: {events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_dies_before_its_index_knows_the_session_makes_no_second_one() -> Result<()> {
    let mut host = host_with_repository().await?;
    host.stop()?;
    host.arm("session.unindexed");
    host.launch().await?;
    let broken = host.client.post_keyed("/v1/sessions", "key", &session_on("demo")).await;
    assert!(broken.is_err(), "{broken:?}");
    host.wait_for_fault()?;
    host.launch().await?;
    let (status, session) = host.client.post_keyed("/v1/sessions", "key", &session_on("demo")).await?;
    assert_eq!(status, StatusCode::CREATED, "{session}");
    assert_eq!(sessions(&host.client).await?, 1);
    Ok(())
}

#[tokio::test]
async fn requests_with_one_key_at_the_same_time_make_one_session() -> Result<()> {
    let host = host_with_repository().await?;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = host.client.clone();
        asked.spawn(async move { client.post_keyed("/v1/sessions", "key", &session_on("demo")).await });
    }
    let mut ids = std::collections::BTreeSet::new();
    while let Some(answered) = asked.join_next().await {
        let (status, session) = answered??;
        assert_eq!(status, StatusCode::CREATED, "{session}");
        ids.insert(session["id"].to_string());
    }
    assert_eq!((ids.len(), sessions(&host.client).await?), (1, 1));
    Ok(())
}
