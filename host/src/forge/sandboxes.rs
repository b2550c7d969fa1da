//! The sandboxes in which git runs: for each repository one that reads, kept for a while, and one for each write.
//!
//! ```text
//!  read  ──► the repository's reader, made at its first use, again when it died, ended when idle ──► git
//!  write ──► leftovers of a git that was killed are removed ──► a sandbox of its own ──► git ──► ended
//! ```
//!
//! Whatever a pushed object does to git, it does it to one repository: a reader cannot change even that one, a writer
//! lives for one operation. Owns the sandboxes' lives; what git is told is none of its business.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use ostler_sandbox::client::{Deadlines, Ended as CallEnd, Guest, GuestError, Launcher};
use ostler_sandbox::wire::guest::{Exec, MIN_TAIL, Overflow, Stdio};
use ostler_sandbox::wire::launcher::{Files, Limits, REPOSITORY, RepositoryAccess};
use tokio::net::UnixStream;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::timeout;

use super::RepositoryName;
use super::leftovers;
use super::process::GitCommand;
use super::running::{Ended, Exit, GitError, one_line};

/// Time that a sandbox may take to be made.
const MAKE: Duration = Duration::from_secs(20);

/// Time between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(2);

/// Time for the writers of a repository to be gone before leftovers of one that was killed are removed.
const SETTLE: Duration = Duration::from_secs(10);

/// A reader that was not used for so long is ended.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// How often idle readers are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Readers that are kept while others are made; more live only while all of them work.
const MOST_READERS: usize = 64;

/// No git runs longer than this, whatever becomes of the host.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Where git finds its programs in there.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The sandboxes of all repositories.
#[derive(Debug)]
pub(super) struct Sandboxes {
    launcher: Launcher,
    epoch: u64,
    places: Mutex<HashMap<RepositoryName, Arc<Place>>>,
}

/// What there is for one repository.
#[derive(Debug)]
struct Place {
    reader: tokio::sync::Mutex<Option<Arc<Sandbox>>>,
    /// Held by each writer until nothing of its sandbox is left.
    writing: Arc<RwLock<()>>,
    /// A git may have been killed while it wrote: before this host, too.
    unclean: AtomicBool,
}

/// A sandbox; ended when it is dropped.
#[derive(Debug)]
struct Sandbox {
    guest: Guest,
    used: Mutex<Instant>,
    life: Life,
}

/// Ends a sandbox when it is dropped, and lets the next writer in afterwards.
#[derive(Debug)]
struct Life {
    id: String,
    launcher: Launcher,
    writing: Option<(Arc<Place>, OwnedRwLockReadGuard<()>)>,
    /// The one git of a writer ended by itself.
    ended_well: AtomicBool,
}

/// A git that runs in one.
pub(super) struct SandboxedGit {
    sandbox: Arc<Sandbox>,
    call: String,
    end: CallEnd,
}

/// The limits of each sandbox in which git runs, the same as long as the host lives. Git may use all processors but one, which is
/// the host's.
pub fn git_limits() -> Limits {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors = PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let cpu_millis = u32::try_from(processors.saturating_sub(1).max(1)).unwrap_or(1).saturating_mul(1000);
    // It has no files of its own; what it writes is the forge's.
    Limits { memory: 2 << 30, pids: 2048, cpu_millis, cpu_weight: 100, io_weight: 100, disk: 1 << 30, files: 1_000_000 }
}

impl Sandboxes {
    pub(super) fn new(launcher: Launcher, epoch: u64) -> Arc<Self> {
        let made = Arc::new(Self { launcher, epoch, places: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&made)));
        made
    }

    /// Starts git in the sandbox that is right for it.
    pub(super) async fn start(&self, root: &Path, command: GitCommand) -> Result<(UnixStream, SandboxedGit), GitError> {
        let place = self.place(&command.repository);
        match command.access {
            RepositoryAccess::Read => {
                let reader = self.reader(&place, &command, None).await?;
                match run(&reader, &command).await {
                    // It had died since its last use; nothing was begun that could be done twice.
                    Err(GuestError::Link(_)) => {
                        let reader = self.reader(&place, &command, Some(&reader)).await?;
                        run(&reader, &command).await
                    }
                    started => started,
                }
            }
            RepositoryAccess::Write => {
                let writing = writing(&place, root, &command.repository).await;
                let writer = Arc::new(self.make(&command, Some((place, writing))).await?);
                run(&writer, &command).await
            }
        }
        .map_err(GitError::Start)
    }

    fn place(&self, repository: &RepositoryName) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(repository.clone()).or_insert_with(|| Arc::new(Place::new())))
    }

    /// The reader of a repository, unless it is the `dead` one.
    async fn reader(
        &self,
        place: &Place,
        command: &GitCommand,
        dead: Option<&Arc<Sandbox>>,
    ) -> Result<Arc<Sandbox>, GitError> {
        let mut reader = place.reader.lock().await;
        if let Some(found) = reader.as_ref().filter(|found| dead.is_none_or(|dead| !Arc::ptr_eq(found, dead))) {
            *found.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(Arc::clone(found));
        }
        if dead.is_some() {
            tracing::warn!(repository = %command.repository, "the sandbox of git had died; it is made anew");
        }
        *reader = None;
        self.make_room();
        let made = Arc::new(self.make(command, None).await?);
        *reader = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn make(
        &self,
        command: &GitCommand,
        writing: Option<(Arc<Place>, OwnedRwLockReadGuard<()>)>,
    ) -> Result<Sandbox, GitError> {
        let id = ulid::Ulid::generate().to_string().to_lowercase();
        let repository = command.repository.as_str();
        let opened = self.launcher.open_repository(&id, repository, command.access, git_limits(), MAKE).await;
        let opened = opened.map_err(GitError::Make)?;
        let life = Life { id, launcher: self.launcher.clone(), writing, ended_well: AtomicBool::new(false) };
        let guest = Guest::connect(opened.control, self.epoch, Deadlines::default()).await.map_err(GitError::Greet)?;
        Ok(Sandbox { guest, used: Mutex::new(Instant::now()), life })
    }

    /// Ends the reader that was idle for longest where there are too many.
    fn make_room(&self) {
        let has_reader = |place: &&Arc<Place>| place.reader.try_lock().map_or(true, |reader| reader.is_some());
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let readers = places.values().filter(has_reader).count();
        drop(places);
        let idle = self.idle_readers(Duration::ZERO).into_iter().min_by_key(|(_, used)| *used);
        if readers > MOST_READERS
            && let Some((place, _)) = idle
        {
            place.end_reader();
        }
    }

    /// Readers without work that were not used for `time`, with when they were.
    fn idle_readers(&self, time: Duration) -> Vec<(Arc<Place>, Instant)> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |place: &Arc<Place>| {
            let reader = place.reader.try_lock().ok()?;
            let reader = reader.as_ref().filter(|reader| Arc::strong_count(reader) == 1)?;
            let used = *reader.used.lock().unwrap_or_else(PoisonError::into_inner);
            (used.elapsed() >= time).then(|| (Arc::clone(place), used))
        };
        places.values().filter_map(idle).collect()
    }

    fn end_idle(&self) {
        for (place, _) in self.idle_readers(IDLE) {
            place.end_reader();
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // One that must be cleaned is remembered as every unknown one: by not being here.
        places.retain(|_, place| {
            Arc::strong_count(place) > 1 || place.reader.try_lock().map_or(true, |reader| reader.is_some())
        });
    }
}

impl Place {
    fn new() -> Self {
        Self { reader: tokio::sync::Mutex::new(None), writing: Arc::default(), unclean: AtomicBool::new(true) }
    }

    /// Ends the reader, unless it is at work again.
    fn end_reader(&self) {
        if let Ok(mut reader) = self.reader.try_lock()
            && reader.as_ref().is_some_and(|reader| Arc::strong_count(reader) == 1)
        {
            *reader = None;
        }
    }
}

/// Ends readers that nobody needs, until the host does.
async fn sweep(sandboxes: Weak<Sandboxes>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(sandboxes) = sandboxes.upgrade() else { return };
        sandboxes.end_idle();
    }
}

/// The right to write to a repository. Where a git may have been killed in it and no other works, what it left is removed
/// first: its locks would refuse every later push.
async fn writing(place: &Arc<Place>, root: &Path, repository: &RepositoryName) -> OwnedRwLockReadGuard<()> {
    if place.unclean.load(Ordering::Acquire) {
        match timeout(SETTLE, Arc::clone(&place.writing).write_owned()).await {
            Ok(_alone) => {
                // Whoever waited for the same may have been first.
                if place.unclean.swap(false, Ordering::AcqRel) {
                    leftovers::remove(root, repository).await;
                }
            }
            Err(_) => tracing::warn!(%repository, "other pushes keep what a killed git left from being removed"),
        }
    }
    Arc::clone(&place.writing).read_owned().await
}

async fn run(sandbox: &Arc<Sandbox>, command: &GitCommand) -> Result<(UnixStream, SandboxedGit), GuestError> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = format!("git-{}", CALLS.fetch_add(1, Ordering::Relaxed));
    let mut env = command.environment.clone();
    env.push(("PATH".to_owned(), PATH.to_owned()));
    let exec = Exec {
        call: call.clone(),
        argv: std::iter::once("git".to_owned()).chain(command.arguments.iter().cloned()).collect(),
        env,
        cwd: REPOSITORY.to_owned(),
        timeout_ms: u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX),
        // The end of its error output.
        output_limit: MIN_TAIL,
        overflow: Overflow::DropHead,
        stdio: Stdio::Piped,
        label: String::new(),
    };
    let (stream, end) = sandbox.guest.exec(exec).await?.split();
    Ok((stream, SandboxedGit { sandbox: Arc::clone(sandbox), call, end }))
}

impl SandboxedGit {
    pub(super) async fn wait(&mut self) -> Result<Ended, GitError> {
        let row = self.end.exit().await.map_err(GitError::Lost)?;
        let exit = Exit(row.exit.map_or(-1, |exit| exit.status));
        self.sandbox.life.ended_well.store(!exit.may_have_left(), Ordering::Release);
        if exit.success() {
            return Ok(Ended { exit, stderr: String::new() });
        }
        let most = u32::try_from(MIN_TAIL).unwrap_or(u32::MAX);
        let said = self.sandbox.guest.read_output(&self.call, row.first, most).await.map_err(GitError::Lost)?;
        Ok(Ended { exit, stderr: one_line(&said.bytes) })
    }

    pub(super) async fn end(mut self) {
        // One that has ended meanwhile is what is wanted; of a lost one the sandbox is gone.
        if self.sandbox.guest.stop(&self.call, GRACE).await.is_ok() {
            let _ = timeout(2 * GRACE, self.wait()).await;
        }
    }
}

impl Drop for SandboxedGit {
    fn drop(&mut self) {
        // A writer goes as a whole.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.sandbox.life.writing.is_none() {
            let (sandbox, call) = (Arc::clone(&self.sandbox), std::mem::take(&mut self.call));
            // Of one that still runs the row stays until others need its place.
            runtime.spawn(async move { sandbox.guest.forget(&call).await });
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let writing = self.writing.take();
        if let Some((place, _)) = &writing
            && !*self.ended_well.get_mut()
        {
            place.unclean.store(true, Ordering::Release);
        }
        // Without a runtime the host is ending, and its sandboxes with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (launcher, id) = (self.launcher.clone(), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            if let Err(error) = launcher.destroy(&id, Files::Remove).await
                && !launcher.is_gone()
            {
                tracing::warn!(%id, error = &error as &dyn std::error::Error, "a sandbox of git could not be ended");
            }
            drop(writing);
        });
    }
}
