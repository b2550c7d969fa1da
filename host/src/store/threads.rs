//! A few threads that own the SQLite connections.
//!
//! SQLite blocks; the runtime must not. A job is a closure over the thread's connections; the queue is bounded and a
//! full one is an error, not a wait.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::error::StoreError;
use super::session_log::OpenLogs;

/// Threads that serve the sessions' logs.
const SHARDS: usize = 2;

/// Jobs that may wait for one thread.
const QUEUE: usize = 1024;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread that owns a `T` and runs jobs over it, in order.
pub(super) struct Thread<T> {
    jobs: SyncSender<Job<T>>,
}

impl<T: 'static> Thread<T> {
    /// Starts the thread; `make` runs on it first.
    pub(super) fn start<E: Send + 'static>(
        name: &str,
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Result<Self, E>, StoreError> {
        let (jobs, receiver) = sync_channel::<Job<T>>(QUEUE);
        let (ready, made) = std::sync::mpsc::channel();
        let work = move || match make() {
            Ok(mut owned) => {
                let _ = ready.send(Ok(()));
                run(&mut owned, &receiver);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|source| StoreError::Create { path: PathBuf::from(name), source })?;
        match made.recv() {
            Ok(Ok(())) => Ok(Ok(Self { jobs })),
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => Err(StoreError::Stopped),
        }
    }

    /// Runs one job and waits for its answer.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |owned| {
            let _ = reply.send(job(owned));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

fn run<T>(owned: &mut T, jobs: &Receiver<Job<T>>) {
    while let Ok(job) = jobs.recv() {
        job(owned);
    }
}

/// The threads of the sessions' logs; a session always meets the same one.
pub(super) struct Shards {
    threads: Vec<Thread<OpenLogs>>,
}

impl Shards {
    pub(super) fn start(folder: &std::path::Path) -> Result<Self, StoreError> {
        let mut threads = Vec::with_capacity(SHARDS);
        for number in 0..SHARDS {
            let folder = folder.to_owned();
            let make = move || Ok::<_, StoreError>(OpenLogs::new(folder));
            threads.push(Thread::start(&format!("session-db-{number}"), make)??);
        }
        Ok(Self { threads })
    }

    pub(super) fn of(&self, session: ostler_protocol::SessionId) -> &Thread<OpenLogs> {
        let spread = usize::try_from(session.ulid().0 % (self.threads.len() as u128)).unwrap_or_default();
        &self.threads[spread]
    }
}
