//! The installed service, started as systemd would: by its unit, with its file of variables, told when it is ready.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ostler_tests::host::send_signal;
use ostler_tests::{Client, DebianRoot};
use rustix::process::Signal;

use super::unit::Unit;

/// Longest time for the host to say what it is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

const NOTIFY: &str = "/run/notify";

/// A running service; dropping it ends it.
pub(super) struct Service<'a> {
    root: &'a DebianRoot,
    child: Child,
    manager: UnixDatagram,
    pub(super) client: Client,
}

impl<'a> Service<'a> {
    /// Starts it and waits until it says that it is ready.
    pub(super) fn start(root: &'a DebianRoot) -> Result<Self> {
        let unit = Unit::read(&root.path("/usr/lib/systemd/system/ostler.service"))?;
        let socket = root.path(NOTIFY);
        // The last one's may be there.
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket)?;
        // Whoever the host becomes, it may write to systemd's socket.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
        manager.set_read_timeout(Some(PATIENCE))?;

        let words = unit.command_line()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (program, arguments) = words.split_first().context("a command line")?;
        let mut command = root.command(program, arguments);
        command.env_remove("NO_COLOR").env("NOTIFY_SOCKET", NOTIFY).envs(variables(root, &unit)?);
        let journal = fs::File::create(root.path("/run/journal"))?;
        let child = command.stdout(Stdio::null()).stderr(journal).spawn()?;
        let mut service = Self { root, child, manager, client: Client::new("", "") };
        let message = service.heard("READY=1")?;
        let url = message.split_once("Ready at ").with_context(|| format!("no address in {message}"))?.1;
        let token = fs::read_to_string(root.path("/var/lib/ostler/token")).context("the token")?;
        service.client = Client::new(url.trim(), token.trim());
        Ok(service)
    }

    /// Waits for the host to say this.
    fn heard(&self, wanted: &str) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.manager.recv(&mut buffer).with_context(|| format!("no {wanted}:\n{}", self.journal()))?;
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        ensure!(message.lines().any(|line| line == wanted), "{wanted} expected, heard {message}");
        Ok(message)
    }

    /// What it wrote.
    fn journal(&self) -> String {
        fs::read_to_string(self.root.path("/run/journal")).unwrap_or_default()
    }

    /// Ends it in order.
    pub(super) fn stop(mut self) -> Result<()> {
        send_signal(self.child.id(), Signal::TERM)?;
        self.heard("STOPPING=1")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the service ended with {status}:\n{}", self.journal());
                fs::remove_file(self.root.path(NOTIFY))?;
                fs::remove_file(self.root.path("/run/journal"))?;
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the service does not end:\n{}", self.journal());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // A test that failed half-way: in order where that is possible, so that no sandbox stays.
        if let Ok(None) = self.child.try_wait() {
            let _ = send_signal(self.child.id(), Signal::TERM);
            let deadline = Instant::now() + PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What the file says that the unit names.
fn variables(root: &DebianRoot, unit: &Unit) -> Result<Vec<(String, String)>> {
    let file = unit.value("EnvironmentFile")?.trim_start_matches('-');
    let text = fs::read_to_string(root.path(file)).with_context(|| format!("read {file}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
