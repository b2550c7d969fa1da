//! The sandbox runtime by itself: a launcher with the test image, and no host.
//!
//! Owns the folder, in which the launcher's socket, state and store lie, and the launcher itself: dropping the last handle
//! of a folder that was made here ends it. What runs in the sandboxes is up to the caller.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_protocol::SessionId;
use ostler_sandbox::client::{Launcher, spawn_launcher};
use ostler_sandbox::launcher::LauncherConfig;
use ostler_sandbox::store::Store;
use ostler_sandbox::wire::guest::{Exec, Overflow, Stdio};
use ostler_sandbox::wire::launcher::Limits;

/// What every sandbox may use.
pub const LIMITS: Limits = Limits {
    memory: 1 << 30,
    pids: 512,
    cpu_millis: 2000,
    cpu_weight: 100,
    io_weight: 100,
    disk: 20 << 30,
    files: 1_000_000,
};

/// Time for anything that is asked of the runtime; reaching it is a hang.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A static program that every machine of ours has; the test image has none that starts as fast.
pub const PROGRAM: &str = "/bin/busybox";

/// A folder for a launcher.
#[derive(Debug)]
pub struct Runtime {
    folder: PathBuf,
    /// Digest of the test image.
    pub image: String,
    uid_first: u32,
    /// Removes the folder and frees the uids; `None` for a folder of another process.
    owned: Option<(tempfile::TempDir, fs::File)>,
}

impl Runtime {
    /// A new folder with the test image.
    ///
    /// # Errors
    /// When the image is missing or cannot be copied.
    pub fn prepare() -> Result<Self> {
        Self::with("OSTLER_TEST_IMAGE")
    }

    /// A new folder with the image of ordinary programs.
    ///
    /// # Errors
    /// When the image is missing or cannot be copied.
    pub fn with_programs() -> Result<Self> {
        Self::with("OSTLER_TEST_PROGRAMS")
    }

    fn with(image: &str) -> Result<Self> {
        let owned = tempfile::Builder::new().prefix("ostler-runtime-").tempdir()?;
        fs::set_permissions(owned.path(), fs::Permissions::from_mode(0o755))?;
        crate::host::copy_image(image, &owned.path().join("data"))?;
        let (slot, lock) = take_slot()?;
        // Ranges of its own above those of installed hosts, so that its processes can be told from others by their uid.
        let uid_first = 0xf000_0000 + slot * Self::UID_RANGES * 65_536;
        fs::write(owned.path().join("uid"), uid_first.to_string())?;
        let mut runtime = Self::at(owned.path())?;
        runtime.owned = Some((owned, lock));
        Ok(runtime)
    }

    /// The folder of another process, which goes on owning it.
    ///
    /// # Errors
    /// When it was not made by [`Self::prepare`].
    pub fn at(folder: &Path) -> Result<Self> {
        let uid = fs::read_to_string(folder.join("uid")).context("the folder of a runtime holds its first uid")?;
        let image = Store::at(&folder.join("data/store")).resolve("base")?.as_str().to_owned();
        Ok(Self { folder: folder.to_owned(), image, uid_first: uid.trim().parse()?, owned: None })
    }

    /// Where everything lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The image store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("data/store")
    }

    /// First uid of its sandboxes.
    #[must_use]
    pub fn uid_first(&self) -> u32 {
        self.uid_first
    }

    /// The uid of the host's own user, to whom the forge belongs: of the last range, which no sandbox gets.
    #[must_use]
    pub fn host_uid(&self) -> u32 {
        self.uid_first + (Self::UID_RANGES - 1) * 65_536
    }

    /// The folder of the forge's repositories, which need not be there.
    #[must_use]
    pub fn forge(&self) -> PathBuf {
        self.folder.join("forge")
    }

    /// Ranges of uids that its sandboxes, and its host's own user, have between them.
    pub const UID_RANGES: u32 = 256;

    /// What the launcher has to say.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("launcher.log")).unwrap_or_default()
    }

    /// Process number of the launcher, while one runs.
    #[must_use]
    pub fn launcher_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("launcher").join(ostler_sandbox::launcher::LOCK)).ok()?;
        let pid = text.trim().parse().ok()?;
        self.is_launcher(pid).then_some(pid)
    }

    /// Whether a process is a launcher of this folder: the number of one that was killed may belong to anybody by now.
    fn is_launcher(&self, pid: u32) -> bool {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&*self.folder.to_string_lossy())
    }

    /// Ends every sandbox and the launcher, and waits until its process has ended.
    ///
    /// # Errors
    /// When it refuses, or does not end.
    pub async fn shut_down(&self, launcher: Launcher) -> Result<()> {
        let pid = self.launcher_pid().context("the launcher runs")?;
        launcher.shutdown().await?;
        self.wait_for_end(pid).await
    }

    /// Waits until a launcher that is ending has ended.
    ///
    /// # Errors
    /// When it does not.
    pub async fn wait_for_end(&self, pid: u32) -> Result<()> {
        // Its command line goes first, while it still listens.
        let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let until = Instant::now() + DEADLINE;
        while lives() {
            ensure!(Instant::now() < until, "the launcher {pid} does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Connects as the host of an epoch, to the launcher that runs or to a new one. Also gives the sandboxes that live.
    ///
    /// # Errors
    /// When none can be started or reached.
    pub async fn connect(&self, epoch: u64) -> Result<(Launcher, Vec<String>)> {
        let socket = self.folder.join("launcher.sock");
        let mut config = LauncherConfig::new(self.store(), self.folder.join("launcher"), socket.clone());
        config.uid_first = self.uid_first;
        config.uid_ranges = Self::UID_RANGES - 1;
        config.host_uid = self.host_uid();
        config.host_gid = self.host_uid();
        config.forge = Some(self.forge());
        let mut command = Command::new(crate::host::binary()?);
        command.arg("internal-launcher").arg(config.to_argument()?);
        spawn_launcher(command, &socket, &self.folder.join("launcher.log"), Duration::from_secs(20))?;
        Ok(Launcher::connect(&socket, epoch).await?)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.owned.is_some()
            && let Some(pid) = self.launcher_pid()
        {
            // It ends its sandboxes first; without the files there is nothing that the next one could clean up.
            let _ = crate::host::send_signal(pid, rustix::process::Signal::TERM);
            let until = Instant::now() + Duration::from_secs(20);
            while self.is_launcher(pid) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Ranges of uids that no other runtime of the machine has, as long as the file is open.
fn take_slot() -> Result<(u32, fs::File)> {
    let until = Instant::now() + DEADLINE;
    loop {
        // One less than there is room for: the largest number is no uid.
        for slot in 0..15 {
            let lock = fs::File::create(std::env::temp_dir().join(format!("ostler-test-uids-{slot}.lock")))?;
            if lock.try_lock().is_ok() {
                return Ok((slot, lock));
            }
        }
        ensure!(Instant::now() < until, "fifteen other runtimes have all uids that tests may use");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command without input, with the usual limits and nothing but a search path in its environment.
#[must_use]
pub fn command(call: &str, argv: &[&str]) -> Exec {
    Exec {
        call: call.to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        cwd: "/".into(),
        timeout_ms: DEADLINE.as_millis() as u64,
        output_limit: 8 << 20,
        overflow: Overflow::End,
        stdio: Stdio::Merged,
        label: String::new(),
    }
}

/// A new sandbox's id.
#[must_use]
pub fn new_id() -> String {
    SessionId::generate().bare()
}
