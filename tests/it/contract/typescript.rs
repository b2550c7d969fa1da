//! The TypeScript client: its types are those of the document, and a whole session goes through it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use ostler_tests::host::variable;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A copy of the client beside the packages that it needs; nothing is written into the repository.
fn client() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let from = root().join("clients/typescript");
    for part in ["package.json", "tsconfig.json", "src/index.ts", "src/schema.d.ts", "test/flow.ts"] {
        let to = folder.path().join(part);
        std::fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        std::fs::copy(from.join(part), to).with_context(|| part.to_owned())?;
    }
    std::os::unix::fs::symlink(variable("OSTLER_TEST_NODE_MODULES")?, folder.path().join("node_modules"))?;
    Ok(folder)
}

/// Runs a program of the packages with Node.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("node");
    command.current_dir(folder).arg(format!("node_modules/{program}")).args(arguments).env("NO_COLOR", "1");
    let output = command.output().context("start node; `cargo xtask setup` says what is missing")?;
    let said = [&output.stdout[..], &output.stderr].concat();
    ensure!(output.status.success(), "{program} {arguments:?} failed:\n{}", String::from_utf8_lossy(&said));
    Ok(output)
}

#[test]
fn the_types_of_the_client_are_those_of_the_document() -> Result<()> {
    let folder = client()?;
    let document = root().join("docs/src/reference/openapi.json");
    let document = document.to_string_lossy();
    run(folder.path(), "openapi-typescript/bin/cli.js", &[&document, "--output", "made.d.ts"])?;
    let made = std::fs::read_to_string(folder.path().join("made.d.ts"))?;
    let committed = root().join("clients/typescript/src/schema.d.ts");
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&committed, &made)?;
        return Ok(());
    }
    let same = std::fs::read_to_string(&committed)? == made;
    ensure!(
        same,
        "clients/typescript/src/schema.d.ts is not what the document says; run this test with UPDATE_DOCS=1, or \
         `npm ci && npm run generate` in clients/typescript, and commit what it writes"
    );
    Ok(())
}

#[tokio::test]
async fn a_whole_session_goes_through_the_typed_client() -> Result<()> {
    let folder = client()?;
    run(folder.path(), "typescript/bin/tsc", &["--noEmit"])?;
    run(folder.path(), "typescript/bin/tsc", &["--outDir", "out"])?;
    let turns = script(&[&shell("echo 'VALUE = 2' > value.py"), END]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("value.py", "VALUE = 1\n")])?.push_to(&host.client).await?;
    let mut command = tokio::process::Command::new("node");
    command.current_dir(folder.path()).arg("out/test/flow.js");
    command.env("OSTLER_URL", &host.client.url).env("OSTLER_TOKEN", &host.client.token).kill_on_drop(true);
    let output = command.output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}\nthe host's log:\n{}", host.log());
    let seen: Value = serde_json::from_slice(&output.stdout)?;

    let session = seen["session"].as_str().context("a session")?.parse()?;
    let events = host.client.events(session).await?;
    let numbers: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(seen["numbers"], json!(numbers), "every event once, in order, over two connections");
    assert_eq!(seen["once"], true, "the prompt that was sent twice is one");
    assert!(seen["caughtUp"].as_u64().is_some_and(|count| count >= 1), "{seen}");
    assert!(seen["diff"].as_str().is_some_and(|diff| diff.contains("+VALUE = 2")), "{seen}");
    assert_eq!((&seen["title"], &seen["listed"]), (&json!("go"), &json!([session])));
    assert_eq!((&seen["missing"], &seen["refused"]), (&json!("not_found"), &json!("not_found")));
    Ok(())
}
