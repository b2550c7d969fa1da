//! `ostler up` as a child process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use ostler_protocol::SessionId;

use crate::client::Client;
use crate::repository::Repository;

/// Time that a host may take to say its address.
const START: Duration = Duration::from_secs(60);

/// Time that a host may take to end.
const END: Duration = Duration::from_secs(30);

/// How a host is to be started.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The conversation that the model plays.
    pub script: String,
    /// The configuration file.
    pub config: String,
    /// Rules of the policy plugin; the plugin is loaded only with rules.
    pub policy: Option<String>,
    /// More arguments of `ostler up`.
    pub arguments: Vec<String>,
    /// Whether its standard error is a disk without room.
    pub full_stderr: bool,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// A running host. Dropping it ends it with everything that it made.
pub struct Host {
    /// Folder of everything that belongs to it.
    pub folder: tempfile::TempDir,
    /// The process.
    child: Option<Child>,
    options: HostOptions,
    /// Where the next start of the host is to end itself.
    fault_point: Option<&'static str>,
    /// A client of it.
    pub client: Client,
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    variable("OSTLER_BIN")
}

/// What `cargo xtask test` says in a variable.
pub fn variable(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name).with_context(|| format!("{name} is not set; run `cargo xtask test`"))?;
    Ok(PathBuf::from(value))
}

/// Sends a signal to a process.
pub fn send_signal(pid: u32, signal: rustix::process::Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process number")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("send {signal:?} to {pid:?}"))
}

/// Imports the image that a variable names into a data folder that all tests copy from, once, and returns the folder.
pub fn shared_data(image: &str) -> Result<PathBuf> {
    let image = variable(image)?;
    let name = image.file_stem().context("the image has a name")?.to_string_lossy().into_owned();
    let data = std::env::temp_dir().join(format!("ostler-test-data-{name}"));
    fs::create_dir_all(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
    let lock = fs::File::create(data.join("test.lock"))?;
    lock.lock().context("lock the shared data folder")?;
    let marker = data.join("test.imported");
    if !marker.exists() {
        let mut import = Command::new(binary()?);
        import.args(["images", "import"]).arg(&image).args(["--name", "base", "--data"]).arg(&data);
        let output = import.output()?;
        if !output.status.success() {
            bail!("the test image could not be imported: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::write(marker, "")?;
    }
    Ok(data)
}

/// Gives a host's data folder the test image: layers are never written to, so hard links serve.
pub fn copy_images(data: &Path) -> Result<()> {
    copy_image("OSTLER_TEST_IMAGE", data)
}

/// The same with the image that a variable names.
pub fn copy_image(image: &str, data: &Path) -> Result<()> {
    let store = shared_data(image)?.join("store");
    fs::create_dir_all(data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o755))?;
    let status = Command::new("cp").arg("-al").arg(&store).arg(data).status()?;
    if !status.success() {
        bail!("cp -al {} {}", store.display(), data.display());
    }
    Ok(())
}

impl Host {
    /// Starts a host and waits until it answers.
    pub async fn start(options: HostOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir()?;
        // The host runs as an unprivileged user and must reach its folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::write(folder.path().join("script.toml"), &options.script)?;
        fs::write(folder.path().join("config.toml"), &options.config)?;
        copy_images(&folder.path().join("data"))?;
        let mut host = Self { folder, child: None, options, fault_point: None, client: Client::new("", "") };
        host.launch().await?;
        Ok(host)
    }

    /// A host that plays `script`, with a repository `demo` of one file on its forge and a session on it.
    pub async fn with_session(script: String) -> Result<(Self, SessionId)> {
        let host = Self::start(HostOptions { script, ..HostOptions::default() }).await?;
        Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
        let session = host.client.create_session("demo").await?.id;
        Ok((host, session))
    }

    /// Folder of the host's data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command of the host's binary that talks to this host.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env("OSTLER_RUNTIME_DIR", self.folder.path().join("run")).env_remove("OSTLER_TOKEN");
        // The machine's own configuration is none of a test's business.
        command.env("OSTLER_CONFIG", self.folder.path().join("config.toml"));
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        Ok(command)
    }

    /// Starts the process again after [`Self::kill`] or [`Self::stop`].
    pub async fn launch(&mut self) -> Result<()> {
        self.launch_at("127.0.0.1:0").await
    }

    /// The same at an address that clients know already.
    pub async fn launch_at(&mut self, address: &str) -> Result<()> {
        let mut command = self.command(&["up", "--listen", address, "--image", "base"])?;
        command.arg("--data").arg(self.data());
        self.model(&mut command);
        if let Some(rules) = &self.options.policy {
            command.arg("--plugin").arg(self.policy_folder(rules)?);
        }
        command.args(&self.options.arguments).envs(self.options.environment.clone());
        if let Some(point) = self.fault_point.take() {
            command.env(ostler_sandbox::fault::VARIABLE, point);
        }
        let log = match self.options.full_stderr {
            true => fs::File::options().write(true).open("/dev/full")?,
            false => fs::File::create(self.folder.path().join("up.log"))?,
        };
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("start `ostler up`")?;
        let stdout = child.stdout.take().context("the host's output")?;
        self.child = Some(child);
        let address = tokio::task::spawn_blocking(move || read_address(stdout)).await?;
        let Ok(url) = address else { bail!("`ostler up` did not start:\n{}", self.log()) };
        let token = fs::read_to_string(self.data().join("token")).context("the token")?;
        self.client = Client::new(&url, token.trim());
        Ok(())
    }

    /// The script, unless other arguments choose a model.
    fn model(&self, command: &mut Command) {
        if !self.options.arguments.iter().any(|argument| argument == "--model") {
            command.arg("--script").arg(self.folder.path().join("script.toml"));
        }
    }

    fn policy_folder(&self, rules: &str) -> Result<PathBuf> {
        let source = variable("OSTLER_POLICY_WASM")?;
        let folder = self.folder.path().join("policy");
        fs::create_dir_all(&folder)?;
        fs::copy(&source, folder.join("policy.wasm")).context("copy the policy plugin")?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/policy/plugin.toml");
        fs::copy(manifest, folder.join("plugin.toml")).context("copy the policy plugin's manifest")?;
        fs::write(folder.join("rules.toml"), rules)?;
        Ok(folder)
    }

    /// What the host wrote to its standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// Process number of the host.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("the host runs")
    }

    /// The next [`Self::launch`] starts a host that ends itself at this point as `kill -9` would.
    pub fn arm(&mut self, point: &'static str) {
        self.fault_point = Some(point);
    }

    /// Ends the host and starts one that ends itself at `point`, in the middle of a prompt to a new session, and the next
    /// one that finds what is left.
    pub async fn prompt_and_fail_at(&mut self, point: &'static str) -> Result<SessionId> {
        self.stop()?;
        self.arm(point);
        self.launch().await?;
        let session = self.client.create_session("demo").await?.id;
        self.client.prompt(session, "work").await?;
        self.wait_for_fault()?;
        self.launch().await?;
        Ok(session)
    }

    /// Waits until the host has ended itself at the point that it was armed with.
    pub fn wait_for_fault(&mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        let child = self.child.as_mut().context("the host runs")?;
        let deadline = std::time::Instant::now() + crate::client::PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                anyhow::ensure!(status.signal() == Some(9), "the host ended otherwise: {status}\n{}", self.log());
                return Ok(());
            }
            anyhow::ensure!(std::time::Instant::now() < deadline, "the host never came to its point");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9` of the host; the launcher and the sandboxes live on.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the host runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM; waits until the host has ended everything and returns its exit code.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        let Some(child) = &self.child else { return Ok(None) };
        send_signal(child.id(), rustix::process::Signal::TERM)?;
        self.wait_for_end()
    }

    /// Waits until the host has ended, and returns its exit code.
    pub fn wait_for_end(&mut self) -> Result<Option<i32>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        let deadline = std::time::Instant::now() + END;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code());
            }
            if std::time::Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the host did not end within {END:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.child.is_none() {
            // A killed host leaves its launcher; a new host takes it over and ends it properly.
            let _ = self.relaunch_to_clean();
        }
        let _ = self.stop();
    }
}

impl Host {
    fn relaunch_to_clean(&mut self) -> Result<()> {
        let mut command = self.command(&["up", "--listen", "127.0.0.1:0", "--image", "base"])?;
        command.arg("--data").arg(self.data());
        self.model(&mut command);
        command.args(&self.options.arguments).envs(self.options.environment.clone());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("the host's output")?;
        self.child = Some(child);
        read_address(stdout)?;
        Ok(())
    }
}

fn read_address(stdout: std::process::ChildStdout) -> Result<String> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        // Read to the end, so that the host never meets a closed or full pipe.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(start) = line.find("http://") {
                let url: String = line[start..].chars().take_while(|c| !c.is_whitespace()).collect();
                let _ = found.send(url.trim_end_matches('/').to_owned());
            }
        }
    });
    Ok(address.recv_timeout(START)?)
}
