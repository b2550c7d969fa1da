//! Tests of the forge with real git on both sides: a router on loopback, a temporary folder, a client with a clean
//! environment.

pub(super) mod children;
mod memory;
mod repositories;
mod smart_http;
mod transfers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ostler_protocol::SessionId;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::{Access, Forge, ForgeLimits, GitRunner, Pushed, RepositoryName, observed_git_router};

/// Time for anything in a test; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A forge with a repository `demo` that holds one commit on `main`, served on loopback.
struct World {
    folder: TempDir,
    forge: Forge,
    /// A work tree with the history of `demo`.
    work: PathBuf,
}

/// A served router.
struct Served {
    address: SocketAddr,
    pushed: mpsc::Receiver<Pushed>,
}

impl Served {
    fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}.git", self.address)
    }
}

impl World {
    async fn new() -> Self {
        Self::with(ForgeLimits::default()).await
    }

    async fn with(limits: ForgeLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let forge = Forge::open_with(&folder.path().join("forge"), GitRunner::children(), limits).unwrap();
        let repository = forge.create(&name("demo")).await.unwrap();
        let work = folder.path().join("work");
        git(folder.path(), &["init", "-q", "-b", "main", "work"]).await;
        let world = Self { folder, forge, work };
        world.commit("README.md", b"hello\n", "first").await;
        git(&world.work, &["push", "-q", repository.path.to_str().unwrap(), "main"]).await;
        world
    }

    /// Commits a file to the branch that is checked out and returns the commit.
    async fn commit(&self, file: &str, content: &[u8], subject: &str) -> String {
        tokio::fs::write(self.work.join(file), content).await.unwrap();
        git(&self.work, &["add", "-A"]).await;
        git(&self.work, &["commit", "-q", "-m", subject]).await;
        self.head().await
    }

    async fn head(&self) -> String {
        git(&self.work, &["rev-parse", "HEAD"]).await.trim().to_owned()
    }

    /// Every reference of `demo` with its object.
    async fn references(&self) -> String {
        git(&self.forge.path(&name("demo")), &["for-each-ref", "--format=%(refname) %(objectname)"]).await
    }

    async fn serve(&self, access: Access) -> Served {
        let (observer, pushed) = mpsc::channel(16);
        let router = observed_git_router(self.forge.clone(), access, Arc::new(observer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Served { address, pushed }
    }

    /// Waits until no git process of the forge is left and proves it.
    async fn assert_no_git(&self) {
        let all = u32::try_from(self.forge.limits().processes).unwrap();
        for places in [&self.forge.places().own, &self.forge.places().sessions] {
            let permits = places.acquire_many(all);
            drop(tokio::time::timeout(PATIENCE, permits).await.expect("git processes are left").unwrap());
        }
        // What git itself started ends by the same signal, a moment later than git.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Some(left) = self.git_below() {
            assert!(tokio::time::Instant::now() < deadline, "{left} still runs");
            tokio::task::yield_now().await;
        }
    }

    /// A process that works in a folder of the forge.
    fn git_below(&self) -> Option<String> {
        let root = self.forge.inner.root.to_str().unwrap();
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
            let folder = std::fs::read_link(process.path().join("cwd")).ok()?;
            folder.starts_with(root).then(|| format!("{:?} in {folder:?}", process.file_name()))
        })
    }
}

/// What a session whose work starts from `main` may do to `demo`: push to `ostler/x`.
fn session() -> Access {
    Access::Session {
        session: SessionId::generate(),
        repository: name("demo"),
        base_branch: "main".into(),
        push_branch: "ostler/x".into(),
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// A git client with a clean environment.
fn client(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let environment = [
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ];
    command.envs(environment).current_dir(folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn try_git(folder: &Path, arguments: &[&str]) -> Output {
    tokio::time::timeout(PATIENCE, client(folder, arguments).output()).await.expect("git hangs").unwrap()
}

/// Runs a git client that must succeed and returns what it prints.
async fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = try_git(folder, arguments).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?} failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a git client that must fail and returns its error output.
async fn git_fails(folder: &Path, arguments: &[&str]) -> String {
    let output = try_git(folder, arguments).await;
    assert!(!output.status.success(), "git {arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}
