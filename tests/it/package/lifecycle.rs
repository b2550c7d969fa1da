//! Installed, run, upgraded, removed, installed again, purged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ostler_protocol::api::PullRequestList;
use ostler_protocol::event::Verdict;
use ostler_protocol::{EventBody, SessionId};
use ostler_tests::host::copy_images;
use ostler_tests::script::{script, shell};
use ostler_tests::{DebianRoot, Repository};
use reqwest::Method;

use super::package;
use super::service::Service;

const CONFIG: &str = "/etc/ostler/config.toml";
const ENVIRONMENT: &str = "/etc/ostler/environment";
const DATA: &str = "/var/lib/ostler";

#[tokio::test]
async fn the_package_installs_runs_upgrades_goes_and_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, second) = (package(folder.path(), "0.1.0-1")?, package(folder.path(), "0.1.0-2")?);
    let root = DebianRoot::new()?;
    let before = root.files()?;

    let told = install(&root, &first)?;
    assert!(told.contains("ostler: next, choose a model"), "the next step is told: {told}");
    a_fresh_installation_wants_a_model(&root)?;
    configure(&root)?;
    let of_package = user(&root)?;
    root.run("userdel", &["ostler"])?;
    let service = Service::start(&root)?;
    assert_eq!(user(&root)?, of_package, "the host makes the same user where there is none");
    let session = a_prompt_becomes_a_pull_request(&root, &service).await?;
    service.stop()?;
    let kept = of_operator(&root)?;

    let told = install(&root, &second)?;
    assert!(!told.contains("ostler: "), "an upgrade has nothing to say: {told}");
    assert_eq!(version(&root)?, "0.1.0-2");
    assert_kept(&root, &kept, "an upgrade")?;
    let service = Service::start(&root)?;
    assert!(has_pull_request(&service, session).await?, "the session is there after the upgrade");
    service.stop()?;

    let kept = of_operator(&root)?;
    let told = root.run("dpkg", &["--remove", "ostler"])?;
    assert!(told.contains("/etc/ostler and /var/lib/ostler stay until"), "{told}");
    assert!(!root.path("/usr/bin/ostler").exists() && !root.path("/usr/lib/ostler").exists());
    assert_kept(&root, &kept, "a removal")?;

    install(&root, &second)?;
    let service = Service::start(&root)?;
    assert!(has_pull_request(&service, session).await?, "the session is there after a removal");
    let refused = root.command("dpkg", &["--purge", "ostler"]).output()?;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("a host still uses /var/lib/ostler"), "{told}");
    assert!(has_pull_request(&service, session).await?, "nothing is deleted under a running host");
    service.stop()?;

    root.run("dpkg", &["--purge", "ostler"])?;
    assert_eq!(differences(&before, &root.files()?), Vec::<String>::new(), "a purge leaves nothing");
    assert!(install(&root, &second)?.contains("ostler: next, choose a model"));
    assert!(root.run("ostler", &["--version"])?.starts_with("ostler "));
    Ok(())
}

/// dpkg itself checks that what the package depends on is there. Only syncing is left out: a test loses no power.
fn install(root: &DebianRoot, package: &Path) -> Result<String> {
    let inside = root.path("/var/tmp/ostler.deb");
    fs::copy(package, &inside)?;
    let told = root.run("dpkg", &["--force-unsafe-io", "--install", "/var/tmp/ostler.deb"])?;
    fs::remove_file(inside)?;
    Ok(told)
}

fn version(root: &DebianRoot) -> Result<String> {
    root.run("dpkg-query", &["--show", "--showformat=${Version}", "ostler"])
}

/// The line of the host's user, whoever made it.
fn user(root: &DebianRoot) -> Result<String> {
    root.run("getent", &["passwd", "ostler"])
}

/// What was installed is sound as it is, and wants only what nobody but the operator can know.
fn a_fresh_installation_wants_a_model(root: &DebianRoot) -> Result<()> {
    assert!(root.run("ostler", &["config", "validate"])?.contains(CONFIG));
    assert_eq!(mode(root, ENVIRONMENT)?, 0o600, "others must not read keys");
    assert_eq!(mode(root, DATA)?, 0o755);
    let up = root.command("ostler", &["up"]).output()?;
    let told = String::from_utf8_lossy(&up.stderr);
    assert_eq!(up.status.code(), Some(3), "{told}");
    assert!(told.contains("no model was chosen"), "{told}");
    Ok(())
}

fn mode(root: &DebianRoot, path: &str) -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(root.path(path)).with_context(|| format!("look at {path}"))?.mode() & 0o7777)
}

/// What an operator does before the first start: a model, the policy, an image. The port is free for a test.
fn configure(root: &DebianRoot) -> Result<()> {
    let conversation = script(&[
        &shell("git push --force origin HEAD:main"),
        &format!("expect = [{{ call = 0, outcome = \"denied\" }}]\n{}", shell("echo new > file && cat file")),
        "expect = [{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"new\" }]\nsay = \"Done.\"",
    ]);
    fs::write(root.path("/etc/ostler/script.toml"), conversation)?;
    let config = fs::read_to_string(root.path(CONFIG))?;
    let paths = "#paths = [\"/usr/lib/ostler/plugins/policy\"]";
    ensure!(config.contains(paths), "the configuration offers the policy: {config}");
    let config = config.replace(paths, &paths[1..]) + "\n[providers.scripted]\nscript = \"script.toml\"\n";
    fs::write(root.path(CONFIG), config)?;
    root.run("ostler", &["config", "validate"])?;
    let mut variables = File::options().append(true).open(root.path(ENVIRONMENT))?;
    writeln!(variables, "OSTLER_LISTEN=127.0.0.1:0")?;
    copy_images(&root.path(DATA))
}

async fn a_prompt_becomes_a_pull_request(root: &DebianRoot, service: &Service<'_>) -> Result<SessionId> {
    let client = &service.client;
    Repository::with("installed", &[("file", "old\n")])?.push_to(client).await?;
    let session = client.create_session("installed").await?.id;
    client.prompt(session, "Change the file").await?;
    let events = client.wait_until_idle(session).await?;
    let denied = |body: &EventBody| matches!(body, EventBody::Decided { verdict: Verdict::Deny, .. });
    assert!(events.iter().any(|event| denied(&event.body)), "the installed policy decides: {events:#?}");
    let pulls: PullRequestList = serde_json::from_value(client.ok(Method::GET, "/v1/pull-requests", None).await?)?;
    assert_eq!(pulls.pull_requests.len(), 1, "{events:#?}");
    // The command line finds the service by itself.
    let listed = root.run("ostler", &["pr", "list"])?;
    assert!(listed.contains("installed"), "{listed}");
    Ok(session)
}

async fn has_pull_request(service: &Service<'_>, session: SessionId) -> Result<bool> {
    let events = service.client.events(session).await?;
    Ok(events.iter().any(|event| matches!(event.body, EventBody::PullRequestOpened { .. })))
}

/// What the operator changed and what the host keeps: files with their modes, owners and, in /etc, their content.
fn of_operator(root: &DebianRoot) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = root.files()?;
    files.retain(|path, _| path.starts_with("etc/ostler") || path.starts_with(&DATA[1..]));
    ensure!(files.keys().any(|path| path.ends_with("index.db")), "the host has kept something: {files:?}");
    Ok(files)
}

/// Paths that only one side has, or that are not alike.
fn differences(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let told = |path: &PathBuf| match (before.get(path), after.get(path)) {
        (Some(_), None) => Some(format!("{} is gone", path.display())),
        (None, Some(_)) => Some(format!("{} is new", path.display())),
        (before, after) => (before != after).then(|| format!("{} is another", path.display())),
    };
    paths.into_iter().filter_map(told).collect()
}

/// That what the operator changed and what the host keeps is what it was.
fn assert_kept(root: &DebianRoot, kept: &BTreeMap<PathBuf, String>, what: &str) -> Result<()> {
    assert_eq!(differences(kept, &of_operator(root)?), Vec::<String>::new(), "{what} keeps configuration and data");
    Ok(())
}
