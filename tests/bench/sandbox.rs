//! The sandbox runtime by itself: exec, create and start, against fork and runc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest};
use ostler_sandbox::wire::launcher::Files;
use ostler_tests::runtime::{DEADLINE, LIMITS, PROGRAM, Runtime, command, new_id};
use tokio::io::AsyncReadExt;

use crate::record::Record;

const EXECS: usize = 300;
const CREATES: usize = 40;

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install busybox-static");
    let runtime = Runtime::prepare()?;
    let (launcher, _) = runtime.connect(1).await?;
    let runc = Runc::prepare(&runtime)?;

    let only = new_id();
    let started = launcher.create(&only, &runtime.image, LIMITS, DEADLINE).await?;
    let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
    let program = fs::read(PROGRAM)?;
    guest.write_file("busybox", &program, 0o755).await?;
    runc.run("exec-peer")?;
    let (mut ours, mut fork, mut runc_exec) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..EXECS {
        ours.push(exec(&guest, number, "/workspace/busybox").await?);
        fork.push(plain(PROGRAM)?);
        if number % 10 == 0 {
            runc_exec.push(runc.exec("exec-peer")?);
        }
    }
    runc.delete("exec-peer")?;
    launcher.destroy(&only, Files::Remove).await?;

    let (mut create, mut runc_run) = (Vec::new(), Vec::new());
    for number in 0..CREATES {
        let sandbox = new_id();
        let began = Instant::now();
        let started = launcher.create(&sandbox, &runtime.image, LIMITS, DEADLINE).await?;
        let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
        create.push(began.elapsed());
        drop(guest);
        launcher.destroy(&sandbox, Files::Remove).await?;
        let name = format!("bench-{number}");
        runc_run.push(runc.run(&name)?);
        runc.delete(&name)?;
    }
    runtime.shut_down(launcher).await?;
    Ok(vec![
        Record::new("sandbox", "exec", "ratio <= 2", &ours).beside("fork+exec", &fork),
        Record::new("sandbox", "exec_runc", "ratio <= 0.1", &ours).beside("runc exec", &runc_exec),
        Record::new("sandbox", "create_start", "ratio <= 0.6", &create).beside("runc run --detach", &runc_run),
    ])
}

/// From the request in the host to exit and end of output in the host.
pub async fn exec(guest: &Guest, number: usize, program: &str) -> Result<Duration> {
    let call = format!("bench-{number}");
    let spec = command(&call, &[program, "true"]);
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
pub fn plain(program: &str) -> Result<Duration> {
    let began = Instant::now();
    let output = Command::new(program).arg("true").env_clear().stdin(Stdio::null()).output()?;
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
    fn prepare(runtime: &Runtime) -> Result<Self> {
        let (bundle, root) = (runtime.folder().join("bundle"), runtime.folder().join("runc"));
        fs::create_dir_all(&bundle)?;
        let layers = runtime.store().join("layers");
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
