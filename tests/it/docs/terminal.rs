//! A shell as a reader of the documentation has one: in a clone of the repository, with `ostler` in its path.
//!
//! Differs from a reader's in what two tests at the same time would fight over: `ostler up` takes a free port, the
//! host's data and the announcement of its address are in a temporary folder. A server of models is there, as the
//! pages ask for: its address in `OPENAI_BASE_URL`, its model, with its provider, in `MODEL`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ostler_tests::ModelServer;
use ostler_tests::host::{binary, copy_images};
use ostler_tests::repository::git;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::root;

/// Longest time of one block.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two looks at what a block in the background printed.
const LOOK: Duration = Duration::from_millis(20);

/// What the server of models plays.
const CONVERSATION: &str = include_str!("conversation.toml");

/// A shell that is open.
pub(super) struct Terminal {
    folder: tempfile::TempDir,
    shell: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Process groups of the blocks in the background.
    background: Vec<Pid>,
    blocks: u32,
    _models: ModelServer,
}

impl Terminal {
    pub(super) async fn open() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ostler-docs-").tempdir()?;
        // The host's user must reach the data in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        furnish(folder.path())?;
        let models = ModelServer::playing(CONVERSATION).await?;
        let mut command = shell(folder.path());
        command.env("OPENAI_BASE_URL", models.openai_url()).env("MODEL", "openai/stand-in");
        let mut shell = command.spawn().context("start bash")?;
        let input = shell.stdin.take().context("the shell's input")?;
        let output = BufReader::new(shell.stdout.take().context("the shell's output")?).lines();
        Ok(Self { folder, shell, input, output, background: Vec::new(), blocks: 0, _models: models })
    }

    /// Runs a block that ends, and returns what it printed.
    pub(super) async fn run(&mut self, block: &str) -> Result<String> {
        let printed = self.next_file();
        let answer = self.ask(&format!("{{ {block}\n}} >{} 2>&1 </dev/null; echo done\n", printed.display())).await;
        let text = fs::read_to_string(&printed).unwrap_or_default();
        answer.with_context(|| format!("it printed:\n{text}"))?;
        Ok(text)
    }

    /// Starts a block that goes on, and waits until it has printed `ready`.
    pub(super) async fn start(&mut self, block: &str, ready: &Regex) -> Result<()> {
        let printed = self.next_file();
        // The shell around the block is there until the block has ended. It has a process group of its own.
        let around =
            format!("set -m; ( trap : TERM; {block}\n) >{} 2>&1 </dev/null & set +m; echo $!\n", printed.display());
        let pid = self.ask(&around).await?.parse()?;
        self.background.push(Pid::from_raw(pid).context("a process number")?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&printed).unwrap_or_default();
            if ready.is_match(&text) {
                return Ok(());
            }
            let alive = self.ask(&format!("kill -0 {pid} 2>/dev/null && echo alive || echo ended\n")).await? == "alive";
            ensure!(alive && Instant::now() < deadline, "it is not ready, it printed:\n{text}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what is in the background and waits for it.
    pub(super) async fn close(mut self) -> Result<()> {
        for group in std::mem::take(&mut self.background).into_iter().rev() {
            kill_process_group(group, Signal::TERM).context("end what is in the background")?;
            self.ask(&format!("wait {} || true; echo done\n", group.as_raw_nonzero())).await?;
        }
        Ok(())
    }

    fn next_file(&mut self) -> PathBuf {
        self.blocks += 1;
        self.folder.path().join(format!("printed-{}", self.blocks))
    }

    /// Gives the shell a line of work and returns the line with which it answers.
    async fn ask(&mut self, work: &str) -> Result<String> {
        self.input.write_all(work.as_bytes()).await?;
        match tokio::time::timeout(PATIENCE, self.output.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => bail!("a command in it failed: {}", self.shell.wait().await?),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("it does not end within {PATIENCE:?}"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for group in &self.background {
            let _ = kill_process_group(*group, Signal::TERM);
        }
    }
}

/// A home with the base image where the set-up leaves it, a clone of the repository, and the commands.
fn furnish(folder: &Path) -> Result<()> {
    let images = folder.join("home/.cache/ostler/images");
    fs::create_dir_all(&images)?;
    let image =
        std::env::var_os("OSTLER_TEST_IMAGE").context("OSTLER_TEST_IMAGE is not set; run `cargo xtask test`")?;
    symlink(image, images.join("base-test.tar"))?;
    fs::write(folder.join("home/.gitconfig"), "[user]\n\tname = Test Person\n\temail = person@example.org\n")?;

    // The layers are there already, so that importing the image costs reading it and not unpacking it once more.
    copy_images(&folder.join("data"))?;
    // A hard link too, and then every test would wait for the same lock.
    fs::remove_file(folder.join("data/store/import.lock"))?;

    fs::create_dir(folder.join("tmp"))?;
    let bin = folder.join("bin");
    fs::create_dir(&bin)?;
    let real = binary()?;
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in up) shift; exec '{0}' up --listen 127.0.0.1:0 \"$@\";; esac\nexec '{0}' \"$@\"\n",
        real.display()
    );
    fs::write(bin.join("ostler"), text)?;
    fs::set_permissions(bin.join("ostler"), fs::Permissions::from_mode(0o755))?;

    // The real repository may be a shallow clone or hold half-done work.
    let clone = folder.join("ostler");
    fs::create_dir(&clone)?;
    for path in ["README.md", "examples"] {
        let status = std::process::Command::new("cp").arg("-r").arg(root().join(path)).arg(&clone).status()?;
        ensure!(status.success(), "copy {path}");
    }
    git(&clone, &["init", "--quiet"])?;
    git(&clone, &["add", "--all"])?;
    git(&clone, &["commit", "--quiet", "--message", "begin"])?;
    Ok(())
}

fn shell(folder: &Path) -> Command {
    let mut command = Command::new("bash");
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["--noprofile", "--norc", "-euo", "pipefail", "-s"]).current_dir(folder.join("ostler"));
    command.env("PATH", format!("{}:{path}", folder.join("bin").display()));
    command.env("HOME", folder.join("home")).env("GIT_CONFIG_NOSYSTEM", "1").env("NO_COLOR", "1");
    command.env("TMPDIR", folder.join("tmp"));
    command.env("OSTLER_DATA", folder.join("data")).env("OSTLER_RUNTIME_DIR", folder.join("run"));
    for name in
        ["OSTLER_TOKEN", "OSTLER_URL", "XDG_CACHE_HOME", "GIT_CONFIG_GLOBAL", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}
