//! The program of `tests/inside`, built once, and sandboxes of the real guest in which it runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ostler_sandbox::client::guest::{Deadlines, Guest, GuestError, Running};
use ostler_sandbox::client::launcher::{Launcher, Started};
use ostler_wire::guest::{Exec, Overflow, Stdio};
use ostler_wire::launcher::Sandbox;
use tokio::io::AsyncReadExt;

use crate::support::{Bench, words};

/// Where the program lies in a sandbox.
pub const PLACE: &str = "/workspace/inside";

/// The program, built once per target directory.
pub fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inside");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = target.join("inside");
        let lock = File::create(target.join("inside.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
        let newest = fs::read_dir(&sources).unwrap().map(|file| changed(&file.unwrap().path()).unwrap()).max();
        let is_current = changed(&program).is_ok_and(|built| Some(built) > newest);
        if !is_current {
            let status = Command::new("rustc")
                .args(["--edition=2024", "-Copt-level=1", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
                .arg(format!("--target={}-unknown-linux-gnu", std::env::consts::ARCH))
                .arg("-o")
                .arg(&program)
                .arg(sources.join("program.rs"))
                .status()
                .unwrap();
            assert!(status.success(), "the program for the inside must build");
        }
        program
    })
}

/// A living sandbox with the program in its workspace.
pub struct Inside {
    pub guest: Guest,
    pub sandbox: Sandbox,
    /// While it is there, the launcher has a host.
    _launcher: Launcher,
}

/// How the program ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub said: String,
}

impl Inside {
    /// Makes a sandbox with the real guest; the bench must have no stand-in configured.
    pub async fn make(bench: &Bench, launcher: &Launcher, id: &str) -> Self {
        Self::enter(launcher, bench.create(launcher, id).await).await
    }

    /// Of a sandbox that was made or handed over.
    pub async fn enter(launcher: &Launcher, started: Started) -> Self {
        let connected = Guest::connect(started.control, 1, Deadlines::default()).await;
        let guest = connected.unwrap_or_else(|error| panic!("{}", words(&error)));
        let program = fs::read(program()).unwrap();
        guest.write_file(PLACE, &program, 0o755).await.unwrap_or_else(|error| panic!("{}", words(&error)));
        Self { guest, sandbox: started.info, _launcher: launcher.clone() }
    }

    /// Runs the program in the workspace.
    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_in("/workspace", arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {}", words(&error)))
    }

    /// Runs the program in another directory, which the guest may refuse.
    pub async fn run_in(&self, directory: &str, arguments: &[&str]) -> Result<Outcome, GuestError> {
        let mut running = self.start(directory, arguments, Stdio::Merged).await?;
        let mut said = Vec::new();
        running.output.read_to_end(&mut said).await.unwrap();
        let exit = running.exit().await?.exit.unwrap();
        Ok(Outcome { status: exit.status, said: String::from_utf8_lossy(&said).trim().to_owned() })
    }

    /// Starts the program, connected as is wanted.
    pub async fn start(&self, directory: &str, arguments: &[&str], stdio: Stdio) -> Result<Running, GuestError> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let argv = [&[PLACE], arguments].concat().into_iter().map(str::to_owned).collect();
        let exec = Exec {
            call: format!("inside-{}", CALLS.fetch_add(1, Ordering::Relaxed)),
            argv,
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: directory.to_owned(),
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            overflow: Overflow::End,
            stdio,
            label: String::new(),
        };
        self.guest.exec(exec).await
    }

    /// What the program prints as JSON.
    pub async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let outcome = self.run(arguments).await;
        serde_json::from_str(&outcome.said).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    }
}
