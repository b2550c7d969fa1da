//! The command line against a real host.

use std::process::Output;

use anyhow::Result;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn run(host: &Host, arguments: &[&str]) -> Result<Output> {
    let mut command = host.command(arguments)?;
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

#[tokio::test]
async fn run_takes_any_repository_on_disk_to_a_pull_request() -> Result<()> {
    let turns = script(&[&shell("echo new > new.txt"), END]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    let repository = Repository::with("anything", &[("a", "a")])?;
    std::fs::write(repository.folder.path().join("uncommitted"), "x")?;
    let path = repository.folder.path().to_string_lossy().into_owned();
    let arguments = [
        "run",
        "--repo",
        &path,
        "--repository",
        "anything",
        "--name",
        "Test Person",
        "--email",
        "person@example.org",
        "Add a file",
    ];
    let output = run(&host, &arguments).await?;
    let (shown, warned) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown}\n{warned}");
    assert!(
        shown.contains("Done.") && shown.contains("/v1/pull-requests/") || shown.contains("pull request"),
        "{shown}"
    );
    assert!(warned.contains("uncommitted"), "{warned}");
    for (arguments, words) in [
        (vec!["sessions"], "Add a file"),
        (vec!["pr", "list"], "Add a file"),
        (vec!["sessions", "--json"], "\"repository\""),
    ] {
        let output = run(&host, &arguments).await?;
        assert!(output.status.success() && text(&output.stdout).contains(words), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[tokio::test]
async fn plugins_and_images_of_a_host_are_listed() -> Result<()> {
    let options = HostOptions { script: script(&[END]), policy: Some(String::new()), ..HostOptions::default() };
    let host = Host::start(options).await?;
    let output = run(&host, &["plugins", "list"]).await?;
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("tool.execute.before") && shown.contains("mutate"), "{output:?}");
    let data = host.data().to_string_lossy().into_owned();
    let output = run(&host, &["images", "list", "--data", &data]).await?;
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.starts_with("IMAGE") && shown.contains("sha256:"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn the_exit_code_tells_what_went_wrong() -> Result<()> {
    let host = Host::start(HostOptions { script: script(&[&shell("true")]), ..HostOptions::default() }).await?;
    let repository = Repository::with("demo", &[("a", "a")])?;
    let path = repository.folder.path().to_string_lossy().into_owned();
    let person = ["--name", "Test Person", "--email", "person@example.org"];
    let with_person = |words: &[&'static str]| -> Vec<String> {
        words.iter().chain(&person).map(|word| (*word).to_owned()).collect()
    };
    let mut exhausted = with_person(&["run", "--repository", "demo"]);
    exhausted.extend(["--repo".into(), path, "go".into()]);
    for (arguments, code, words) in [
        (exhausted, 7, "script_exhausted"),
        (vec!["diff".into(), "ses_01jd3kq4v5w6x7y8z9a0b1c2d3".into()], 4, "there is no session"),
        (with_person(&["run", "--repo", "/nonexistent", "go"]), 3, "/nonexistent"),
        (vec!["sesions".into()], 2, "sessions"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&host, &arguments).await?;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_host_every_client_verb_says_how_to_start_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = std::process::Command::new(ostler_tests::host::binary()?);
    command.arg("sessions").env("OSTLER_RUNTIME_DIR", folder.path()).env_remove("OSTLER_URL").env("NO_COLOR", "1");
    let output = command.output()?;
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("ostler up"), "{}", text(&output.stderr));
    Ok(())
}
