//! The examples of the document are sent to a real host, in an order in which each finds what it needs.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use ostler_protocol::EventBody;
use ostler_tests::contract::{Document, Operation, document};
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Client, Host, HostOptions, Repository};
use reqwest::Method;
use serde_json::Value;

/// Every operation, in the order of a session's life.
const ORDER: &[&str] = &[
    "getHealth",
    "listPlugins",
    "getMetrics",
    "getDocument",
    "putRepository",
    "getRepository",
    "listRepositories",
    "createSession",
    "getSession",
    "submitPrompt",
    "readEvents",
    "listSessions",
    "getSessionDiff",
    "listPorts",
    "startProcess",
    "listProcesses",
    "readProcessOutput",
    "stopProcess",
    "restartProcess",
    "createPreview",
    "listPreviews",
    "deletePreview",
    "createTerminal",
    "listTerminals",
    "deleteTerminal",
    "getBlob",
    "listPullRequests",
    "getPullRequest",
    "stopSession",
];

/// Sends an operation's example and gives the answer. `real` has what the ids of the example are on this host.
async fn send(client: &Client, operation: Operation<'_>, real: &HashMap<&str, String>) -> Result<Value> {
    let mut path = operation.path.to_owned();
    let mut headers = vec![("accept", "application/json")];
    for parameter in operation.body["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().context("a parameter has a name")?;
        match (parameter["in"].as_str(), parameter["example"].as_str()) {
            (Some("path"), Some(example)) => {
                path = path.replace(&format!("{{{name}}}"), real.get(name).map_or(example, String::as_str));
            }
            (Some("header"), Some(example)) => headers.push((name, example)),
            (Some("path"), None) => bail!("`{name}` of {} has no example", operation.path),
            _ => {}
        }
    }
    let body = &operation.body["requestBody"]["content"]["application/json"]["example"];
    let body = body.is_object().then(|| body.clone());
    let method: Method = operation.method.parse()?;
    let (status, answer) = client.send_with(method, &path, &headers, body).await?;
    let documented = operation.body["responses"].as_object().into_iter().flatten();
    let success: Vec<&String> = documented.map(|(status, _)| status).filter(|status| status.starts_with('2')).collect();
    anyhow::ensure!(
        success == [status.as_str()],
        "{path} answered {status}, its example promises {success:?}: {answer}"
    );
    Ok(answer)
}

fn named<'a>(document: &'a Document, name: &str) -> Result<Operation<'a>> {
    let mut operations = document.operations().into_iter();
    operations.find(|operation| operation.body["operationId"] == name).with_context(|| format!("no operation {name}"))
}

#[test]
fn every_operation_has_its_place_in_the_order() -> Result<()> {
    let documented = document()?.operations();
    let mut names: Vec<&str> = documented.iter().filter_map(|o| o.body["operationId"].as_str()).collect();
    let mut ordered = ORDER.to_vec();
    names.sort_unstable();
    ordered.sort_unstable();
    assert_eq!(names, ordered, "put a new operation into ORDER, where it finds what it needs");
    Ok(())
}

#[tokio::test]
async fn the_example_of_every_operation_works_on_a_real_host() -> Result<()> {
    let document = document()?;
    let turns = script(&[&shell("seq 1 20000; echo work > work.txt"), END]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    let mut real = HashMap::new();
    for name in ORDER {
        let answer = send(&host.client, named(document, name)?, &real).await.with_context(|| (*name).to_owned())?;
        match *name {
            // What the operations do not do themselves: git fills the repository.
            "putRepository" => {
                let services = "[database]\ncommand = \"exec sleep 1000\"";
                let files = [("a", "a"), (".ostler/services.toml", services)];
                Repository::with("demo", &files)?.push_to(&host.client).await?;
            }
            "createSession" => {
                real.insert("session", answer["id"].as_str().context("an id")?.to_owned());
            }
            "createPreview" => {
                real.insert("preview", answer["id"].as_str().context("an id")?.to_owned());
            }
            "submitPrompt" => {
                let events = host.client.wait_until_idle(real["session"].parse()?).await?;
                for event in events {
                    match event.body {
                        EventBody::ToolFinished { blob: Some(blob), .. } => real.insert("digest", blob.digest),
                        EventBody::PullRequestOpened { pull_request, .. } => {
                            real.insert("pull_request", pull_request.to_string())
                        }
                        _ => None,
                    };
                }
            }
            _ => {}
        }
    }
    assert_eq!(real.len(), 4, "the session wrote a blob, opened a pull request and has a preview: {real:?}");
    Ok(())
}

#[test]
fn every_example_of_an_answer_is_of_its_type() -> Result<()> {
    let document = document()?;
    for operation in document.operations() {
        for (status, response) in operation.body["responses"].as_object().into_iter().flatten() {
            let status: u16 = status.parse()?;
            let path = operation.path;
            for (kind, content) in document.resolve(response)["content"].as_object().into_iter().flatten() {
                let several =
                    content["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
                let one = Some(&content["example"]).filter(|example| !example.is_null());
                for example in several.chain(one) {
                    document.judge(operation.method, path, status, kind, example)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_answer_that_the_document_does_not_know_is_found() -> Result<()> {
    let document = document()?;
    let judge = |path: &str, status, kind: &str, body: Value| document.judge("GET", path, status, kind, &body).is_ok();
    let good = serde_json::json!({ "sessions": [] });
    assert!(judge("/v1/sessions?limit=1", 200, "application/json", good.clone()));
    assert!(!judge("/v1/sessions", 418, "application/json", good.clone()), "status");
    assert!(!judge("/v1/sessions", 200, "text/plain", good), "content type");
    assert!(!judge("/v1/sessions", 200, "application/json", serde_json::json!({ "sessions": 7 })), "type");
    assert!(!judge("/v1/sessions", 200, "application/json", serde_json::json!({})), "missing field");
    let error = serde_json::json!({ "status": 400, "code": "weather", "message": "rain" });
    assert!(!judge("/v1/sessions", 400, "application/json", error), "unknown code");
    Ok(())
}
