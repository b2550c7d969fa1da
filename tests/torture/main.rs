//! `ostler-torture sandbox [--creates N] [--concurrency N] [--minutes N] [--seed N]`: the long form of what the tests do
//! shortly, see `ostler_tests::torture`.
//!
//! `ostler-torture user …` is what it starts as the host that is killed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ostler_tests::runtime::Runtime;
use ostler_tests::torture::user::{Ended, LAUNCHER_GONE, Use};
use ostler_tests::torture::{Creates, Leftovers, Soak, creates, leftovers, soak, user};

/// What the long form does unless told otherwise.
struct Plan {
    creates: Creates,
    soak: Duration,
    seed: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words.as_slice() {
        ["user", rest @ ..] => {
            let ended = runtime.block_on(user::run(use_of(rest)?))?;
            // Not waited for: whatever still hangs on a launcher that is gone ends with the process.
            runtime.shutdown_background();
            match ended {
                Ended::InTime => Ok(ExitCode::SUCCESS),
                Ended::LauncherGone(noticed) => {
                    eprintln!("the launcher is gone: {noticed:#}");
                    Ok(ExitCode::from(LAUNCHER_GONE))
                }
            }
        }
        ["sandbox", rest @ ..] => {
            runtime.block_on(sandbox(&plan_of(rest)?))?;
            Ok(ExitCode::SUCCESS)
        }
        [] => bail!("name a suite; there is: sandbox"),
        [other, ..] => bail!("unknown suite `{other}`; there is: sandbox"),
    }
}

fn use_of(words: &[&str]) -> Result<Use> {
    let [folder, epoch, seed, milliseconds, finish] = words else {
        bail!("user FOLDER EPOCH SEED MILLISECONDS finish|leave")
    };
    Ok(Use {
        folder: PathBuf::from(folder),
        epoch: epoch.parse()?,
        seed: seed.parse()?,
        duration: Duration::from_millis(milliseconds.parse()?),
        finish: *finish == "finish",
    })
}

fn plan_of(words: &[&str]) -> Result<Plan> {
    let mut plan = Plan {
        creates: Creates { count: 10_000, concurrency: 32, busy_threads: 8 },
        soak: Duration::from_secs(600),
        seed: u64::from(std::process::id()),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} wants a number"))?;
        let number: u64 = value.parse().with_context(|| format!("{word} wants a number, not `{value}`"))?;
        match *word {
            "--creates" => plan.creates.count = number as usize,
            "--concurrency" => plan.creates.concurrency = (number as usize).max(1),
            "--minutes" => plan.soak = Duration::from_secs(number * 60),
            "--seed" => plan.seed = number,
            other => bail!("unknown option `{other}`; there are: --creates, --concurrency, --minutes, --seed"),
        }
    }
    Ok(plan)
}

async fn sandbox(plan: &Plan) -> Result<()> {
    let Creates { count, concurrency, busy_threads } = plan.creates;
    eprintln!("{count} sandboxes, {concurrency} at a time, beside {busy_threads} busy threads");
    let runtime = Arc::new(Runtime::prepare()?);
    let before = Leftovers::of(&runtime)?;
    let (launcher, _) = runtime.connect(1).await?;
    let pid = runtime.launcher_pid().context("the launcher runs")?;
    let open = leftovers::descriptors(pid)?;
    let created = creates(&runtime, &launcher, plan.creates).await?;
    leftovers::ensure_descriptors(pid, open).await?;
    let at = |part: f64| created.ready[((created.ready.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!(
        "created: {count} in {:.0} s, ready after p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, at most {:.1} ms; 0 hangs",
        created.took.as_secs_f64(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
    runtime.shut_down(launcher).await?;
    Leftovers::of(&runtime)?.ensure_nothing_since(&before)?;

    eprintln!("random use for {} s, seed {}", plan.soak.as_secs(), plan.seed);
    let began = Instant::now();
    let program = std::env::current_exe()?;
    let plan = Soak { duration: plan.soak, sandboxes: 12, seed: plan.seed, program };
    let done = soak(&runtime, &plan).await?;
    println!(
        "used: {} actions in {:.0} s, {} hosts and {} launchers killed; nothing hung, nothing was lost",
        done.actions.values().sum::<usize>(),
        began.elapsed().as_secs_f64(),
        done.hosts_killed,
        done.launchers_killed
    );
    println!("actions: {:?}", done.actions);
    Leftovers::of(&runtime)?.ensure_nothing_since(&before)?;
    println!("left: no process, mount, control group or file of a sandbox");
    Ok(())
}
