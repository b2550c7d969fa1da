//! Real providers: a server that speaks as they do, and misbehaves as they do, behind a real host and a real sandbox.

use anyhow::{Context, Result};
use ostler_protocol::event::{ModelStop, Summarizer, ToolOutcome, TurnOutcome};
use ostler_protocol::{Event, EventBody, SessionId};
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Fault, Host, HostOptions, ModelServer, Repository};

/// A key that must not be seen anywhere but in requests to the provider.
const CANARY: &str = "sk-canary-3f1c9a";

#[derive(Clone, Copy, Debug)]
enum Api {
    Anthropic,
    OpenAi,
}

const APIS: [Api; 2] = [Api::Anthropic, Api::OpenAi];

/// A host whose model is the server's.
async fn host(api: Api, server: &ModelServer) -> Result<(Host, SessionId)> {
    let (model, key, url, address) = match api {
        Api::Anthropic => ("anthropic/stand-in", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", server.anthropic_url()),
        Api::OpenAi => ("openai/stand-in", "OPENAI_API_KEY", "OPENAI_BASE_URL", server.openai_url()),
    };
    let environment = vec![(key.to_owned(), CANARY.to_owned()), (url.to_owned(), address)];
    start(model, environment).await
}

async fn start(model: &str, environment: Vec<(String, String)>) -> Result<(Host, SessionId)> {
    let arguments = vec!["--model".to_owned(), model.to_owned()];
    let host = Host::start(HostOptions { arguments, environment, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    Ok((host, session))
}

fn two_steps() -> String {
    script(&[&shell("echo once >> log; wc -l < log"), END])
}

fn outcome(events: &[Event]) -> Option<&TurnOutcome> {
    events.iter().rev().find_map(|event| match &event.body {
        EventBody::TurnFinished { outcome, .. } => Some(outcome),
        _ => None,
    })
}

fn failure(events: &[Event]) -> &str {
    match outcome(events) {
        Some(TurnOutcome::Failed { message, .. }) => message,
        _ => "",
    }
}

fn outputs(events: &[Event]) -> Vec<(ToolOutcome, &str)> {
    let results = events.iter().filter_map(|event| match &event.body {
        EventBody::ToolFinished { outcome, output, .. } => Some((*outcome, output.trim())),
        _ => None,
    });
    results.collect()
}

fn retries(events: &[Event]) -> Vec<(u32, String, u64)> {
    let retries = events.iter().filter_map(|event| match &event.body {
        EventBody::ModelRetried { attempt, reason, after_ms, .. } => Some((*attempt, reason.clone(), *after_ms)),
        _ => None,
    });
    retries.collect()
}

/// Whether a text stands in any file below a folder.
fn stands_in(folder: &std::path::Path, text: &str) -> Result<bool> {
    let status = std::process::Command::new("grep").args(["-rqF", text]).arg(folder).status()?;
    Ok(status.success())
}

#[tokio::test]
async fn a_prompt_becomes_a_pull_request_with_either_api_and_the_key_goes_nowhere_else() -> Result<()> {
    for api in APIS {
        let server = ModelServer::playing(&script(&[&shell("env; echo new > b; cat a"), END])).await?;
        let (host, session) = host(api, &server).await?;
        host.client.prompt(session, "make b").await?;
        let events = host.client.wait_until_idle(session).await?;
        assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
        assert!(events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. })));
        let usage = events.iter().find_map(|event| match &event.body {
            EventBody::ModelResponded { usage, .. } => usage.input_tokens,
            _ => None,
        });
        assert_eq!(usage, Some(100));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        let second = requests[1].to_string();
        assert!(second.contains("exit status 0") && second.contains("I run a command."), "{second}");
        assert_eq!(server.keys(), [CANARY, CANARY]);
        assert!(!stands_in(host.folder.path(), CANARY)?, "the key was written down");
    }
    Ok(())
}

#[tokio::test]
async fn what_fails_for_a_while_is_tried_again_where_people_see_it_and_no_tool_runs_twice() -> Result<()> {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for api in APIS {
        let server = ModelServer::playing(&two_steps()).await?;
        let (host, session) = host(api, &server).await?;
        // The call of the first answer is whole in the stream that breaks: what is missing is its end.
        server.fail_with([
            Fault::Status(429, vec![("retry-after", "2".into())], r#"{"error":{"message":"slow down"}}"#.into()),
            Fault::Status(529, vec![], overloaded.into()),
            Fault::Break(12),
            Fault::Overloaded,
        ]);
        host.client.prompt(session, "go").await?;
        let events = host.client.wait_until_idle(session).await?;
        assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
        assert_eq!(outputs(&events), [(ToolOutcome::Done, "1")]);
        let retries = retries(&events);
        assert_eq!(retries.iter().map(|(attempt, ..)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(retries[0].1.contains("slow down") && retries[0].2 >= 2_000, "{retries:?}");
        assert!(retries[2].1.contains("broke off"), "{retries:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_always_breaks_ends_the_turn_and_runs_nothing() -> Result<()> {
    let server = ModelServer::playing(&two_steps()).await?;
    let (host, session) = host(Api::OpenAi, &server).await?;
    server.fail_with((0..5).map(|_| Fault::Break(10)));
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert!(failure(&events).contains("broke off") && failure(&events).ends_with("(attempt 5)"), "{events:#?}");
    assert_eq!(outputs(&events), []);
    // The session goes on with the next prompt.
    host.client.prompt(session, "again").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_cut_at_its_limit_runs_nothing_and_goes_on() -> Result<()> {
    for api in APIS {
        let server = ModelServer::playing(&two_steps()).await?;
        let (host, session) = host(api, &server).await?;
        server.fail_with([Fault::OutputLimit]);
        host.client.prompt(session, "go").await?;
        let events = host.client.wait_until_idle(session).await?;
        assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
        assert_eq!(outputs(&events), [(ToolOutcome::Done, "1")]);
        let stops = events.iter().filter_map(|event| match &event.body {
            EventBody::ModelResponded { stop, .. } => Some(*stop),
            _ => None,
        });
        assert_eq!(stops.collect::<Vec<_>>(), [ModelStop::OutputLimit, ModelStop::Finished, ModelStop::Finished]);
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_that_grows_too_long_is_compacted_and_goes_on_also_after_a_restart() -> Result<()> {
    let long = shell("head -c 9000 /dev/zero | tr '\\0' x");
    let turns: Vec<&str> = vec![&long, &long, &long, &long, END, END];
    let server = ModelServer::playing(&script(&turns)).await?;
    let (mut host, session) = host(Api::OpenAi, &server).await?;
    server.set_context(30_000);
    host.client.prompt(session, "look at everything").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
    let compacted = events.iter().find_map(|event| match &event.body {
        EventBody::ContextCompacted { by, summary, tokens_before, tokens_after, .. } => {
            Some((*by, summary.clone(), *tokens_before, *tokens_after))
        }
        _ => None,
    });
    let (by, summary, before, after) = compacted.context("it was compacted")?;
    assert_eq!((by, summary.as_str()), (Summarizer::Model, "SUMMARY: the work so far."));
    assert!(after < before, "{after} {before}");
    host.kill()?;
    host.launch().await?;
    host.client.prompt(session, "and now this").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
    let last = server.requests().pop().context("a request")?.to_string();
    assert!(last.contains("SUMMARY: the work so far.") && last.contains("and now this"), "{last}");
    assert!(!last.contains("xxxxxxxx"), "what was summarized is not sent any more");
    Ok(())
}

#[tokio::test]
async fn a_stop_and_a_restart_reach_a_model_that_says_nothing() -> Result<()> {
    let server = ModelServer::playing(&two_steps()).await?;
    let (mut host, session) = host(Api::Anthropic, &server).await?;
    server.fail_with([Fault::Stall(3)]);
    host.client.prompt(session, "first").await?;
    // The event comes before the question: a stop between them would be one that the model never hears of.
    server.wait_for_requests(1).await?;
    host.client.stop(session).await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(outcome(&events), Some(&TurnOutcome::Stopped));

    server.fail_with([Fault::Stall(3)]);
    host.client.prompt(session, "second").await?;
    server.wait_for_requests(2).await?;
    host.kill()?;
    host.launch().await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
    assert_eq!(outputs(&events), [(ToolOutcome::Done, "1")]);
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_a_page_and_an_unknown_model_end_the_run_with_words_that_help() -> Result<()> {
    let server = ModelServer::playing(&two_steps()).await?;
    let url = |url: String| vec![("OPENAI_BASE_URL".to_owned(), url)];
    let cases = [
        ("openai/stand-in", url(server.openai_url()), "refused the key (401): no such key"),
        ("openai/stand-in", url(server.anthropic_url()), "answered a web page (404)"),
        (
            "openai/other",
            url(server.openai_url()),
            "has no model `other`: The model `other` does not exist; it has: stand-in",
        ),
        ("openai/stand-in", url("http://127.0.0.1:1/v1".into()), "could not reach the provider `openai`"),
    ];
    for (number, (model, environment, words)) in cases.into_iter().enumerate() {
        if number == 0 {
            server.fail_with([Fault::Status(401, vec![], r#"{"error":{"message":"no such key"}}"#.into())]);
        }
        let (host, _) = start(model, environment).await?;
        let repository = Repository::with("demo", &[("a", "a")])?;
        let mut run = host.command(&["run", "do it", "--name", "Test Person", "--email", "person@example.org"])?;
        run.arg("--repo").arg(repository.folder.path());
        let output = tokio::process::Command::from(run).output();
        let output = tokio::time::timeout(std::time::Duration::from_secs(120), output).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{model}: {said}");
        assert_eq!(output.status.code(), Some(7), "{said}");
        let tried_again = String::from_utf8_lossy(&output.stdout).contains("asking again");
        assert_eq!(tried_again, number == 3, "only what may pass is tried again");
    }
    Ok(())
}
