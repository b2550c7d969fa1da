//! The threads that guests run on: never those of the API, never more calls at once than threads.
//!
//! Each thread has a small tokio runtime of its own and does one job at a time, so a guest that spins delays nobody's
//! timers. The queue is bounded: full is an answer (`Busy`), and so is waiting too long for a turn. The threads end when
//! the pool is dropped.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Most jobs that wait.
const QUEUE: usize = 256;
/// Longest wait for a turn.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// What a job may take beyond its own deadline before it is given up.
const GRACE: Duration = Duration::from_millis(500);

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PoolError {
    /// No thread was free in time.
    #[error("too many plugin calls are under way")]
    Busy,
    /// It did not end at its deadline.
    #[error("the call did not end at its deadline")]
    Stuck,
    /// It panicked: a defect of the host.
    #[error("the plugin host failed in the middle of the call")]
    Lost,
}

/// A set of threads and the queue before them.
pub(super) struct Pool {
    queue: Arc<Queue>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.ready.notify_all();
    }
}

impl Pool {
    /// How many threads a machine gets.
    pub(super) fn threads() -> usize {
        std::thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 8)
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread or no runtime.
    pub(super) fn start() -> std::io::Result<Self> {
        let pool = Self { queue: Arc::new(Queue::default()) };
        for number in 0..Self::threads() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let queue = Arc::clone(&pool.queue);
            std::thread::Builder::new().name(format!("plugin-{number}")).spawn(move || work(&runtime, &queue))?;
        }
        Ok(pool)
    }

    /// Does a job on one of the threads. The job keeps its own deadline, `limit` after it began; here is only the net
    /// below it.
    ///
    /// # Errors
    /// The queue is full, the turn does not come, or the job does not end.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&Runtime) -> R + Send + 'static,
    ) -> Result<R, PoolError> {
        let began = Arc::new(AtomicBool::new(false));
        let (ended, mut end) = oneshot::channel();
        let begin = Arc::clone(&began);
        self.queue.push(Box::new(move |runtime| {
            // Nobody waits any more: do not begin.
            if !ended.is_closed() {
                begin.store(true, Ordering::Release);
                let _ = ended.send(job(runtime));
            }
        }))?;
        let ended = match timeout(QUEUE_WAIT, &mut end).await {
            Ok(ended) => ended,
            Err(_) if began.load(Ordering::Acquire) => {
                timeout(limit + GRACE, end).await.map_err(|_| PoolError::Stuck)?
            }
            Err(_) => return Err(PoolError::Busy),
        };
        ended.map_err(|_| PoolError::Lost)
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    /// Nothing that is done under the lock panics, so a poisoned lock holds a good queue.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), PoolError> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= QUEUE {
            return Err(PoolError::Busy);
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// The next job; nothing once the pool is gone.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(runtime: &Runtime, queue: &Queue) {
    while let Some(job) = queue.next() {
        // The job's own channel tells its caller that it is lost; the thread goes on.
        if catch_unwind(AssertUnwindSafe(|| job(runtime))).is_err() {
            tracing::error!("a plugin call panicked in the host");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_loses_one_job_and_no_thread() {
        let pool = Pool::start().unwrap();
        for _ in 0..2 * Pool::threads() {
            let lost = pool.run(Duration::from_secs(5), |_| -> u8 { panic!("on purpose") }).await;
            assert_eq!(lost, Err(PoolError::Lost));
        }
        assert_eq!(pool.run(Duration::from_secs(5), |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_pool_answers_busy_instead_of_waiting_for_ever() {
        let pool = Pool::start().unwrap();
        let gate = Arc::new(std::sync::Barrier::new(Pool::threads() + 1));
        let mut holders = Vec::new();
        for _ in 0..Pool::threads() {
            let gate = Arc::clone(&gate);
            let (began, begin) = oneshot::channel();
            pool.queue
                .push(Box::new(move |_| {
                    let _ = began.send(());
                    gate.wait();
                }))
                .unwrap();
            holders.push(begin);
        }
        for begin in holders {
            begin.await.unwrap();
        }
        assert_eq!(pool.run(Duration::from_secs(5), |_| 7).await, Err(PoolError::Busy));
        let noop = || Box::new(|_: &Runtime| ());
        while pool.queue.push(noop()).is_ok() {}
        assert_eq!(pool.queue.lock().jobs.len(), QUEUE);
        assert_eq!(pool.run(Duration::from_secs(5), |_| 7).await, Err(PoolError::Busy));
        gate.wait();
        let drained = async {
            while !pool.queue.lock().jobs.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), drained).await.unwrap();
        assert_eq!(pool.run(Duration::from_secs(5), |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn the_threads_end_with_the_pool() {
        let pool = Pool::start().unwrap();
        let queue = Arc::downgrade(&pool.queue);
        drop(pool);
        // Each thread holds the queue until it ends; a deadline turns a hang into a failure.
        let gone = async {
            while queue.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.unwrap();
    }
}
