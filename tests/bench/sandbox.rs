//! The sandbox runtime by itself: exec, create and start, against fork and runc.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest, Launcher, spawn_launcher};
use ostler_sandbox::launcher::LauncherConfig;
use ostler_sandbox::store::Store;
use ostler_sandbox::wire::guest::{Exec, Overflow, Stdio as Streams};
use ostler_sandbox::wire::launcher::{Files, Limits};
use tokio::io::AsyncReadExt;

use crate::record::Record;

/// A static program, the same for us and for the peers.
const PROGRAM: &str = "/bin/busybox";

const EXECS: usize = 300;
const CREATES: usize = 40;
const LIMITS: Limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 2000 };
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install busybox-static");
    let folder = tempfile::Builder::new().prefix("ostler-bench-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let data = folder.path().join("data");
    ostler_tests::host::copy_images(&data)?;
    let launcher = start_launcher(folder.path(), &data).await?;
    let image = Store::at(&data.join("store")).resolve("base")?.as_str().to_owned();
    let runc = Runc::prepare(folder.path(), &data)?;

    let started = launcher.create("01jd3kq4v5w6x7y8z9a0b1c2d3", &image, LIMITS, DEADLINE).await?;
    let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
    let program = fs::read(PROGRAM)?;
    guest.write_file("busybox", &program, 0o755).await?;
    runc.run("exec-peer")?;
    let (mut ours, mut fork, mut runc_exec) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..EXECS {
        ours.push(exec(&guest, number).await?);
        fork.push(plain()?);
        if number % 10 == 0 {
            runc_exec.push(runc.exec("exec-peer")?);
        }
    }
    runc.delete("exec-peer")?;
    launcher.destroy("01jd3kq4v5w6x7y8z9a0b1c2d3", Files::Remove).await?;

    let (mut create, mut runc_run) = (Vec::new(), Vec::new());
    for number in 0..CREATES {
        let sandbox = format!("01jd3kq4v5w6x7y8z9a0b1c{number:03}");
        let began = Instant::now();
        let started = launcher.create(&sandbox, &image, LIMITS, DEADLINE).await?;
        let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
        create.push(began.elapsed());
        drop(guest);
        launcher.destroy(&sandbox, Files::Remove).await?;
        let name = format!("bench-{number}");
        runc_run.push(runc.run(&name)?);
        runc.delete(&name)?;
    }
    launcher.shutdown().await?;
    Ok(vec![
        Record::new("sandbox", "exec", "ratio <= 2.5", &ours).beside("fork+exec", &fork),
        Record::new("sandbox", "exec_runc", "ratio <= 0.2", &ours).beside("runc exec", &runc_exec),
        Record::new("sandbox", "create_start", "ratio <= 0.8", &create).beside("runc run --detach", &runc_run),
    ])
}

async fn start_launcher(folder: &Path, data: &Path) -> Result<Launcher> {
    let socket = folder.join("launcher.sock");
    let config = LauncherConfig::new(data.join("store"), folder.join("launcher"), socket.clone());
    let mut command = Command::new(ostler_tests::host::binary()?);
    command.arg("internal-launcher").arg(config.to_argument()?);
    spawn_launcher(command, &socket, &folder.join("launcher.log"), Duration::from_secs(20))?;
    Ok(Launcher::connect(&socket, 1).await?.0)
}

/// From the request in the host to exit and end of output in the host.
async fn exec(guest: &Guest, number: usize) -> Result<Duration> {
    let call = format!("bench-{number}");
    let spec = Exec {
        call: call.clone(),
        argv: vec!["/workspace/busybox".into(), "true".into()],
        env: Vec::new(),
        cwd: "/".into(),
        timeout_ms: 10_000,
        output_limit: 1 << 20,
        overflow: Overflow::End,
        stdio: Streams::Merged,
        label: String::new(),
    };
    let began = Instant::now();
    let mut running = guest.exec(spec).await?;
    let mut output = Vec::new();
    running.output.read_to_end(&mut output).await?;
    let ended = running.exit().await?;
    let took = began.elapsed();
    ensure!(ended.exit.is_some_and(|exit| exit.status == 0), "{ended:?}");
    guest.forget(&call).await?;
    Ok(took)
}

/// A plain fork and exec of the same program, output read to its end.
fn plain() -> Result<Duration> {
    let began = Instant::now();
    let output = Command::new(PROGRAM).arg("true").env_clear().stdin(Stdio::null()).output()?;
    let took = began.elapsed();
    ensure!(output.status.success());
    Ok(took)
}

/// runc on the same root file system.
struct Runc {
    bundle: PathBuf,
    root: PathBuf,
}

impl Runc {
    /// A bundle over a copy of the image's layer, with the same kinds of namespaces as ours.
    fn prepare(folder: &Path, data: &Path) -> Result<Self> {
        let (bundle, root) = (folder.join("bundle"), folder.join("runc"));
        fs::create_dir_all(&bundle)?;
        let layers = data.join("store/layers");
        let layer = fs::read_dir(&layers)?.next().context("the image has a layer")??.path();
        succeed(Command::new("cp").arg("-a").arg(&layer).arg(bundle.join("rootfs")))?;
        fs::copy(PROGRAM, bundle.join("rootfs/busybox"))?;
        succeed(Command::new("runc").arg("spec").current_dir(&bundle))?;
        let path = bundle.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/busybox", "sleep", "1000"]);
        spec["root"]["readonly"] = false.into();
        fs::write(&path, serde_json::to_vec(&spec)?)?;
        Ok(Self { bundle, root })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(&self.root)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn run(&self, name: &str) -> Result<Duration> {
        let began = Instant::now();
        succeed(self.command(&["run", "--detach", "--bundle"]).arg(&self.bundle).arg(name))?;
        Ok(began.elapsed())
    }

    fn exec(&self, name: &str) -> Result<Duration> {
        let began = Instant::now();
        succeed(&mut self.command(&["exec", name, "/busybox", "true"]))?;
        Ok(began.elapsed())
    }

    fn delete(&self, name: &str) -> Result<()> {
        succeed(&mut self.command(&["delete", "--force", name]))
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
