//! schemathesis against a real host: requests made from the document, right ones and wrong ones. No answer may be a server's
//! error, have a status, a content type or a shape that the document does not know, take what the document forbids or refuse
//! what it allows.

use std::path::Path;

use anyhow::{Context, Result};
use ostler_protocol::{EventBody, SessionId};
use ostler_tests::host::variable;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};

/// Seconds for everything; most of them go into requests that build on answers before them.
const SECONDS: &str = "45";

/// What exists on the host, so that requests get past the first check, and what schemathesis cannot know.
fn configuration(session: SessionId, digest: &str, pull_request: &str) -> String {
    format!(
        r#"
seed = 7
request-timeout = 20
continue-on-failure = true

[parameters]
"path.session" = "{session}"
"path.digest" = "{digest}"
"path.pull_request" = "{pull_request}"
"path.repository" = "demo"
# A stream does not end by itself.
"query.format" = "json"

[checks]
# A text beyond its limit is refused with 413.
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "409", "413"]

# A cursor is a text that only a page before can give, and what git takes for a branch is no pattern.
[[operations]]
include-operation-id-regex = "^(list|createSession)"
checks.positive_data_acceptance.enabled = false
"#
    )
}

/// A host with a session that wrote a blob and opened a pull request.
async fn host_with_everything() -> Result<(Host, SessionId, String, String)> {
    let turns = script(&[&shell("seq 1 20000; echo work > work.txt"), END]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let digest = events.iter().find_map(|event| match &event.body {
        EventBody::ToolFinished { blob: Some(blob), .. } => Some(blob.digest.clone()),
        _ => None,
    });
    let opened = events.iter().find_map(|event| match &event.body {
        EventBody::PullRequestOpened { pull_request, .. } => Some(pull_request.to_string()),
        _ => None,
    });
    Ok((host, session, digest.context("a blob")?, opened.context("a pull request")?))
}

#[tokio::test]
async fn no_request_gets_an_answer_that_the_document_does_not_know() -> Result<()> {
    let program = variable("OSTLER_TEST_SCHEMATHESIS")?;
    let (host, session, digest, pull_request) = host_with_everything().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("schemathesis.toml"), configuration(session, &digest, &pull_request))?;
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/openapi.json").canonicalize()?;
    let mut command = tokio::process::Command::new(program);
    command
        .current_dir(folder.path())
        .args(["--config-file", "schemathesis.toml", "run"])
        .arg(document)
        .args(["--url", &host.client.url, "--header", &format!("Authorization: Bearer {}", host.client.token)])
        .args(["--max-examples", "40", "--max-time", SECONDS, "--no-color"])
        .kill_on_drop(true);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    // Bodies as long as the limits allow are no reading.
    let said: Vec<String> = said.lines().map(|line| line.chars().take(500).collect()).collect();
    let said = said.join("\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = host.log();
    let bad: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
    assert!(output.status.success(), "{said}\n{errors}\nwarnings and errors of the host:\n{}", bad.join("\n"));
    // One that tested nothing would succeed as well.
    let operations = ostler_tests::contract::document()?.operations().len();
    assert!(said.contains(&format!("Tested: {operations}")), "{said}");
    let counted = said.split("Test cases:").nth(1).and_then(|rest| rest.trim_start().split_once(" generated"));
    let made: u32 = counted.context("the number of requests")?.0.parse().with_context(|| said.clone())?;
    assert!(made > 500, "only {made} requests were made:\n{said}");
    Ok(())
}
