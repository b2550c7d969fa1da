//! A git repository for one test.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;

/// A repository in a folder of its own.
pub struct Repository {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// Its name on the forge.
    pub name: String,
}

/// Runs git in a folder with a neutral identity and returns its standard output.
pub fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    // The forge's files belong to the host's own user, and the side that serves a clone trusts only a file to say so.
    let trust = tempfile::NamedTempFile::new()?;
    std::fs::write(trust.path(), "[safe]\n\tdirectory = *\n")?;
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=Test Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", trust.path())
        .output()?;
    if !output.status.success() {
        bail!("git {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs git in a folder as a client of the host's repository `name`; the word `URL` is its address. What git said is the
/// caller's to judge.
pub async fn git_client(client: &Client, folder: &Path, name: &str, words: &[&str]) -> Result<Output> {
    let url = format!("{}/git/{name}.git", client.url);
    let header = format!("http.extraHeader=Authorization: Bearer {}", client.token);
    let mut command = tokio::process::Command::new("git");
    command.arg("-C").arg(folder).args(["-c", &header]);
    command.args(words.iter().map(|word| if *word == "URL" { url.as_str() } else { word }));
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    Ok(command.output().await?)
}

impl Repository {
    /// A repository with one commit on `main` that holds `files`.
    pub fn with(name: &str, files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        git(folder.path(), &["init", "--quiet"])?;
        for (path, content) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            std::fs::write(path, content)?;
        }
        git(folder.path(), &["add", "--all"])?;
        git(folder.path(), &["commit", "--quiet", "--allow-empty", "--message", "begin"])?;
        Ok(Self { folder, name: name.to_owned() })
    }

    /// Makes the repository on the host's forge and pushes `main` to it.
    pub async fn push_to(&self, client: &Client) -> Result<()> {
        client.ok(reqwest::Method::PUT, &format!("/v1/repositories/{}", self.name), None).await?;
        let pushed = git_client(client, self.folder.path(), &self.name, &["push", "--quiet", "URL", "main"]).await?;
        ensure!(pushed.status.success(), "git push failed: {}", String::from_utf8_lossy(&pushed.stderr));
        Ok(())
    }
}
