//! The configuration from the outside: `ostler config`, and what a host makes of a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions};
use reqwest::Method;

const CANARY: &str = "sk-canary-4711";

/// Runs `ostler` in a folder, with these variables and none of the machine's.
fn ostler(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    run(Command::new(ostler_tests::host::binary()?), folder, arguments, variables)
}

fn run(mut command: Command, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    command.args(arguments).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").env("NO_COLOR", "1");
    command.env("OSTLER_RUNTIME_DIR", folder.join("run")).envs(variables.iter().copied());
    Ok(command.output()?)
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A folder that every user can reach.
fn folder(config: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("config.toml"), config)?;
    Ok(folder)
}

#[test]
fn validate_tells_every_problem_and_ends_with_3_and_so_does_up() -> Result<()> {
    let folder = folder("[host]\nlsten = 1\n[sandbox]\nmemory = \"lots\"\n")?;
    for arguments in [&["config", "validate", "config.toml"][..], &["up", "--config", "config.toml", "--data", "data"]]
    {
        let output = ostler(folder.path(), arguments, &[])?;
        let told = told(&output);
        assert_eq!(output.status.code(), Some(3), "{told}");
        for words in ["config.toml:2:1: unknown key `host.lsten`", "hint: did you mean `listen`?", "config.toml:4:10: "]
        {
            assert!(told.contains(words), "`{words}` is missing in: {told}");
        }
        assert!(!folder.path().join("data").exists(), "nothing half-made is left");
    }
    fs::write(folder.path().join("config.toml"), "[host]\nlisten = \"127.0.0.1:1\"\n")?;
    let output = ostler(folder.path(), &["config", "validate"], &[("OSTLER_CONFIG", "config.toml")])?;
    let path = folder.path().join("config.toml");
    assert_eq!((output.status.code(), told(&output)), (Some(0), format!("OK: {}\n", path.display())));
    Ok(())
}

#[test]
fn show_says_where_each_value_was_said() -> Result<()> {
    let folder = folder("[host]\ndata = \"data\"\n[sandbox]\npids = 99\n")?;
    let arguments = ["config", "show", "--origin", "--config", "config.toml", "--memory", "3G"];
    let output = ostler(folder.path(), &arguments, &[("OSTLER_LISTEN", "127.0.0.1:2")])?;
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    let place = folder.path().display();
    for line in [
        format!("data = \"{place}/data\"  # {place}/config.toml:2"),
        "listen = \"127.0.0.1:2\"  # environment OSTLER_LISTEN".to_owned(),
        "memory = \"3G\"  # flag --memory".to_owned(),
        format!("pids = 99  # {place}/config.toml:4"),
        "image = \"base\"  # default".to_owned(),
    ] {
        assert!(told.lines().any(|found| found == line), "`{line}` is missing in: {told}");
    }
    Ok(())
}

#[test]
fn a_key_is_in_no_output_and_a_file_that_others_may_read_is_refused() -> Result<()> {
    let folder = folder("")?;
    let key = folder.path().join("key");
    fs::write(&key, CANARY)?;
    let config = format!("[providers.anthropic]\napi_key_file = \"{}\"\n", key.display());
    fs::write(folder.path().join("config.toml"), config)?;
    for (mode, code) in [(0o644, 3), (0o600, 0)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        for arguments in [
            &["config", "validate", "config.toml"][..],
            &["config", "show", "--config", "config.toml"],
            &["config", "show", "--origin", "--config", "config.toml"],
            &["config", "show", "--json", "--config", "config.toml"],
        ] {
            let output = ostler(folder.path(), arguments, &[("OPENAI_API_KEY", CANARY)])?;
            let told = told(&output);
            assert!(!told.contains("canary"), "{told}");
            if arguments[1] == "validate" {
                assert_eq!(output.status.code(), Some(code), "{told}");
                assert_eq!(told.contains(&format!("chmod 600 {}", key.display())), code == 3, "{told}");
            } else {
                assert!(output.status.success() && told.contains("OPENAI_API_KEY"), "{told}");
            }
        }
    }
    Ok(())
}

#[test]
fn without_root_it_works_and_says_when_it_may_not_read_the_file() -> Result<()> {
    let folder = folder("[sandbox]\npids = 99\n")?;
    let copy = folder.path().join("ostler");
    fs::copy(ostler_tests::host::binary()?, &copy)?;
    let unprivileged = |mode: u32| -> Result<Output> {
        fs::set_permissions(folder.path().join("config.toml"), fs::Permissions::from_mode(mode))?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        run(command, folder.path(), &["config", "show", "--config", "config.toml"], &[])
    };
    let output = unprivileged(0o644)?;
    assert!(output.status.success() && told(&output).contains("pids = 99\n"), "{}", told(&output));
    let output = unprivileged(0o600)?;
    assert_eq!(output.status.code(), Some(8), "{}", told(&output));
    assert!(told(&output).contains("config.toml: Permission denied"), "{}", told(&output));
    Ok(())
}

#[test]
fn the_schema_is_json() -> Result<()> {
    let folder = folder("")?;
    let output = ostler(folder.path(), &["config", "schema"], &[])?;
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["sandbox"]["properties"]["pids"]["type"], "integer");
    Ok(())
}

#[tokio::test]
async fn a_host_runs_with_what_its_file_says() -> Result<()> {
    let config =
        "[host]\nallowed_origins = [\"https://page.example\"]\n[log]\nfilter = \"ostler=trace\"\nformat = \"json\"\n"
            .to_owned();
    let host = Host::start(HostOptions { script: script(&[END]), config, ..HostOptions::default() }).await?;
    host.client.ok(Method::GET, "/v1/health", None).await?;
    let url = format!("{}/v1/sessions", host.client.url);
    for (origin, status) in [("https://page.example", 200), ("https://other.example", 403)] {
        let request = reqwest::Client::new().get(&url).bearer_auth(&host.client.token).header("origin", origin);
        assert_eq!(request.send().await?.status().as_u16(), status, "{origin}");
    }
    let lines: Vec<serde_json::Value> = host.log().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let refused = lines.iter().find(|line| line["message"] == "refused" && line["status"] == 403);
    assert!(refused.is_some_and(|line| line["spans"][0]["path"] == "/v1/sessions"), "{lines:#?}");
    // Another command finds the images where the file says that the host's data is.
    let config = format!("[host]\ndata = \"{}\"\n", host.data().display());
    fs::write(host.folder.path().join("other.toml"), config)?;
    let mut images = host.command(&["images", "list", "--config"])?;
    let output = images.arg(host.folder.path().join("other.toml")).output()?;
    assert!(output.status.success() && told(&output).contains("\nbase  "), "{}", told(&output));
    Ok(())
}
