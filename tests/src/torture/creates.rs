//! Many sandboxes are made, used once and removed, while the host's other threads allocate and read its environment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest, Launcher};
use ostler_sandbox::wire::launcher::Files;
use tokio::io::AsyncReadExt;

use super::leftovers::note_group;
use crate::runtime::{DEADLINE, LIMITS, Runtime, command, new_id};

/// How many and how.
#[derive(Clone, Copy, Debug)]
pub struct Creates {
    /// Sandboxes in all.
    pub count: usize,
    /// Sandboxes at one time.
    pub concurrency: usize,
    /// Threads that allocate and read the environment meanwhile.
    pub busy_threads: usize,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Created {
    /// Time from request to the first answer of the guest, sorted.
    pub ready: Vec<Duration>,
    /// Wall time of all.
    pub took: Duration,
}

/// Makes them all, through a launcher of the runtime. The first failure, or the first step that takes longer than
/// [`DEADLINE`], ends it.
///
/// # Errors
/// Names the step and the sandbox.
pub async fn creates(runtime: &Arc<Runtime>, launcher: &Launcher, plan: Creates) -> Result<Created> {
    let began = Instant::now();
    let busy = Busy::start(plan.busy_threads);
    let started = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..plan.concurrency)
        .map(|_| {
            let (runtime, launcher, started) = (Arc::clone(runtime), launcher.clone(), Arc::clone(&started));
            tokio::spawn(async move {
                let mut ready = Vec::new();
                while started.fetch_add(1, Ordering::Relaxed) < plan.count {
                    let id = new_id();
                    let step = tokio::time::timeout(DEADLINE * 2, one(&runtime, &launcher, &id)).await;
                    ready.push(step.with_context(|| format!("sandbox {id} hangs"))??);
                }
                Ok::<_, anyhow::Error>(ready)
            })
        })
        .collect();
    let mut ready = Vec::with_capacity(plan.count);
    for worker in workers {
        ready.extend(worker.await??);
    }
    drop(busy);
    ensure!(ready.len() == plan.count, "{} of {} sandboxes were made", ready.len(), plan.count);
    ready.sort();
    Ok(Created { ready, took: began.elapsed() })
}

/// Makes, uses and removes one.
async fn one(runtime: &Runtime, launcher: &Launcher, id: &str) -> Result<Duration> {
    let began = Instant::now();
    let started =
        launcher.create(id, &runtime.image, LIMITS, DEADLINE).await.with_context(|| format!("create {id}"))?;
    let first = started.info.pid;
    let guest =
        Guest::connect(started.control, 1, Deadlines::default()).await.with_context(|| format!("greet {id}"))?;
    let ready = began.elapsed();
    note_group(runtime, first, id)?;
    let mut running =
        guest.exec(command("only", &["/bin/echo", "hello"])).await.with_context(|| format!("exec in {id}"))?;
    let mut said = String::new();
    running.output.read_to_string(&mut said).await?;
    let call = running.exit().await.with_context(|| format!("end of exec in {id}"))?;
    ensure!(call.exit.is_some_and(|exit| exit.status == 0) && said == "hello\n", "exec in {id}: {call:?}, {said:?}");
    launcher.destroy(id, Files::Remove).await.with_context(|| format!("destroy {id}"))?;
    Ok(ready)
}

/// Threads that keep locks of the allocator and of the environment busy. They end when this is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Busy {
    fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|number| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while !stop.load(Ordering::Relaxed) {
                        seen += std::env::vars_os().count() + std::env::var_os("PATH").map_or(0, |path| path.len());
                        seen += vec![number as u8; 1 + seen % 100_000].len();
                        // A busy host, not one that takes the whole machine.
                        std::thread::yield_now();
                    }
                    seen
                })
            })
            .collect();
        Self { stop, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
