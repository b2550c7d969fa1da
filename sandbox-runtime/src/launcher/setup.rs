//! Becoming a launcher: what a freshly executed process does before it listens.
#![expect(unsafe_code, reason = "signal sets have no safe wrapper")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use sha2::{Digest, Sha256};

use super::leases::{Block, Leases};
use super::sealed::{run_from_memory, seal, unsealed};
use super::state::{Launcher, log};
use super::{LOCK, LauncherConfig, LauncherError, recovery, rights, running};
use crate::cgroup::Cgroups;
use crate::defence::Defence;
use crate::process;
use crate::standing::{self, Standing};
use crate::step::{Step, failure};
use crate::store::Store;
use crate::worker::seccomp;

/// The launcher is ended last when the machine is out of memory.
const OOM_SCORE: &str = "-900";

/// The maps of uids and gids that files of sandboxes were made with, where those are not the machine's.
const ID_MAPS: &str = "id-maps";

/// Longest wait for a lock whose holder has ended.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Descriptors that the launcher keeps of each sandbox: control socket, three of the door, process, memory, and a worker's report.
const FILES_OF_A_SANDBOX: u64 = 7;

/// Descriptors of its own, with callers and what it opens for a moment.
const FILES_OF_ITS_OWN: u64 = 64;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// The launcher's lock, with the process number of its holder as content.
pub(super) struct Lock(File);

impl Lock {
    fn take(state: &Path) -> Result<Self, LauncherError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(state);
        made.step("make directory", || state.display().to_string()).map_err(LauncherError::Step)?;
        let path = state.join(LOCK);
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.step("open lock", || path.display().to_string()).map_err(LauncherError::Step)?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {
                    let holder = holder(&file);
                    let has_ended =
                        holder.trim().parse().ok().and_then(Pid::from_raw).is_some_and(|pid| !process::lives(pid));
                    // A process that the holder had just forked when it was killed still has the lock, for a moment.
                    if !has_ended || Instant::now() > until {
                        return Err(LauncherError::Held { state: state.to_owned(), holder });
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    return Err(error).step("lock", || path.display().to_string()).map_err(LauncherError::Step);
                }
            }
        }
        let pid = rustix::process::getpid().as_raw_nonzero();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{pid}"))
            .step("write lock", || path.display().to_string())
            .map_err(LauncherError::Step)?;
        Ok(Self(file))
    }

    /// Empties the file; the lock itself ends with the process.
    pub(super) fn forget(&self) {
        let _ = self.0.set_len(0);
    }
}

/// Process number in a lock file. A holder that is only just writing its number is shown as a question mark.
fn holder(mut file: &File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.take(16).read_to_string(&mut holder));
    if holder.trim().is_empty() { "?".to_owned() } else { holder.trim().to_owned() }
}

/// The listening socket and its file.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    fn open(config: &LauncherConfig) -> Result<Self, Failure> {
        let path = config.socket.clone();
        let shown = || path.display().to_string();
        // The lock is held: a socket file that is there belongs to nobody.
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.step("remove old socket", shown)?,
        }
        let address =
            SocketAddrUnix::new(&path).step("name socket", || format!("{}: at most 107 bytes", path.display()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).step("make socket", shown)?;
        let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = bind(&socket, &address).step("bind", shown);
        rustix::process::umask(umask);
        bound?;
        chown(&path, Some(config.host_uid), Some(config.host_gid)).step("give socket to the host", shown)?;
        process::refuse_descriptors(&socket);
        listen(&socket, BACKLOG).step("listen", shown)?;
        Ok(Self { socket, path })
    }

    /// Takes the socket file away.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Which signals came.
pub(super) enum Signals {
    Children,
    Stop,
}

/// Does everything up to listening.
pub(super) fn prepare(config: LauncherConfig) -> Result<Launcher, LauncherError> {
    if !config.weakened.is_possible(cfg!(debug_assertions)) {
        return Err(LauncherError::Weakened);
    }
    match process::is_single_threaded().step("count threads", || "of this process".to_owned()) {
        Ok(true) => {}
        Ok(false) => return Err(LauncherError::Threads),
        Err(failed) => return Err(LauncherError::Step(failed)),
    }
    if !rustix::process::geteuid().is_root() {
        end_as_the_user(&config)?;
        standing::enter().map_err(LauncherError::NotRoot)?;
    }
    // From here on it may be another process image, which begins anew.
    run_from_memory().map_err(LauncherError::Step)?;
    settle().map_err(LauncherError::Step)?;
    let lock = Lock::take(&config.state)?;
    let store = Store::create(&config.store).map_err(LauncherError::Store)?;
    store.remove_half_made().map_err(LauncherError::Store)?;
    assemble(config, lock, store).map_err(LauncherError::Step)
}

/// Ends what an earlier launcher of this user left where there were no control groups. The user may, who made the namespace that
/// it lives in; root of another namespace may not. Nobody else begins anything meanwhile: the lock is held.
fn end_as_the_user(config: &LauncherConfig) -> Result<(), LauncherError> {
    let _lock = Lock::take(&config.state)?;
    running::end_noted(&config.state).map_err(LauncherError::Step)
}

/// Files bear ids of the namespace. Where those came to mean others of the machine, what is kept would be somebody else's.
fn same_ids_as_before(state: &Path) -> Result<(), Failure> {
    let path = state.join(ID_MAPS);
    let shown = || path.display().to_string();
    let now = standing::maps()?;
    let before = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.step("read", shown)?),
    };
    let now_text = now.join("\n\n");
    if before.as_deref() == Some(&now_text) {
        return Ok(());
    }
    let goes_on = before.as_deref().is_none_or(|before| {
        let maps = before.split_once("\n\n").filter(|(uids, gids)| !uids.trim().is_empty() && !gids.trim().is_empty());
        maps.is_some_and(|(uids, gids)| standing::goes_on(uids, &now[0]) && standing::goes_on(gids, &now[1]))
    });
    if !goes_on {
        let words = "the user's ids in /etc/subuid or /etc/subgid are no longer those that files of sandboxes bear: put the old lines \
                     first again and new ones after them, or begin with another data folder";
        return Err(failure(FailureKind::Invalid, "compare ids", words));
    }
    let half = path.with_extension("new");
    File::create(&half)
        .and_then(|mut file| file.write_all(now_text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&half, &path))
        .step("write", shown)
}

fn assemble(mut config: LauncherConfig, lock: Lock, store: Store) -> Result<Launcher, Failure> {
    let files = getrlimit(Resource::Nofile).current;
    if let Some(most) = fitting(config.most_sandboxes, files) {
        log(&format!(
            "at most {most} sandboxes: each needs {FILES_OF_A_SANDBOX} open files, the hard limit is {}",
            files.unwrap_or_default()
        ));
        config.most_sandboxes = most;
    }
    let standing = Standing::of_this_process();
    let mut cgroups = Cgroups::detect(&tag(&config.state)?, standing)?;
    if standing == Standing::Namespace {
        cgroups.move_down();
    }
    recovery::end_leftovers(&cgroups)?;
    // Of root in a container; those of an ordinary user are ended already.
    running::end_noted(&config.state)?;
    let mut leases = match standing {
        Standing::Machine => Leases::new(Block::whole(config.uid_first, config.uid_ranges)),
        Standing::Namespace => {
            same_ids_as_before(&config.state)?;
            Leases::of_namespace(standing::own_ids()?)
        }
    };
    let signals = watch_signals().step("watch signals", || "of children and to end".to_owned())?;
    let kept = recovery::find_kept(&store, &mut leases)?;
    // A copy that cannot be removed is no reason not to start.
    if let Err(error) = store.remove_unused_copies(|range| leases.may_be_given(range)) {
        log(&format!("copies of layers stay: {error}"));
    }
    let guest = match &config.guest {
        Some(program) => {
            let program = fs::read(program).step("read guest", || program.display().to_string())?;
            if config.weakened.lacks(Defence::SealedGuest) { unsealed(&program)? } else { seal(&program)? }
        }
        None => seal(crate::guest_image::bytes())?,
    };
    let listener = Listener::open(&config)?;
    // Once, for all workers.
    seccomp::program(seccomp::Calls::All)?;
    seccomp::program(seccomp::Calls::Files)?;
    rights::give_up(&config.weakened)?;
    for gap in cgroups.gaps() {
        log(&format!("not limited here: {}", gap.words()));
    }
    log(&format!("listening at {}, {} sandboxes kept", config.socket.display(), kept.len()));
    Ok(Launcher {
        config,
        store,
        cgroups,
        guest,
        signals,
        listener,
        lock,
        leases,
        kept,
        sandboxes: std::collections::BTreeMap::new(),
        waiting: VecDeque::new(),
        last_instance: 0,
        last_words: std::collections::BTreeMap::new(),
        disk: super::disk::Disk::default(),
        callers: Vec::new(),
        host: None,
        departed: Vec::new(),
        links: 0,
        epoch: 0,
        alone_since: Some(Instant::now()),
        stopping: None,
    })
}

/// How many sandboxes the limit of open files has room for, where those are fewer.
fn fitting(most: usize, files: Option<u64>) -> Option<usize> {
    let room = files?.saturating_sub(FILES_OF_ITS_OWN) / FILES_OF_A_SANDBOX;
    usize::try_from(room).ok().filter(|room| *room < most)
}

/// Leaves behind what the starting process had: environment, descriptors, groups, session.
fn settle() -> Result<(), Failure> {
    let step = |done: Result<(), Errno>, op: &str| done.step(op, || "of the launcher".to_owned());
    step(process::forget_inheritance(), "drop inheritance")?;
    step(rustix::thread::set_thread_groups(&[]), "drop groups")?;
    match rustix::process::setsid() {
        // It leads a session or group already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => step(Err(error), "begin session")?,
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    step(rustix::process::set_child_subreaper(Some(rustix::process::getpid())), "become subreaper")?;
    step(rustix::thread::set_name(c"ostler-launcher"), "set name")?;
    std::env::set_current_dir("/").step("change directory", || "/".to_owned())?;
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        log(&format!("cannot protect itself from lack of memory: {error}"));
    }
    let files = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files });
    step(raised, "raise limit of open files")
}

/// Tells launchers on one machine apart by their state directory, whatever path leads to it.
fn tag(state: &Path) -> Result<String, Failure> {
    let place = fs::metadata(state).step("inspect", || state.display().to_string())?;
    let hash = Sha256::digest(format!("{}:{}", place.dev(), place.ino()));
    Ok(hex::encode(&hash[..5]))
}

/// Says that the launcher listens, and lets go of standard output.
pub(super) fn say_ready() -> Result<(), Failure> {
    let mut output = std::io::stdout();
    let said = output.write_all(b"ready\n").and_then(|()| output.flush());
    // Whoever started it may have gone away: that is no reason not to serve.
    if let Err(error) = said {
        log(&format!("nobody waited for the launcher to be ready: {error}"));
    }
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, Mode::empty())
        .step("open", || "/dev/null".to_owned())?;
    rustix::stdio::dup2_stdout(&null).step("close standard output", || "of the launcher".to_owned())?;
    rustix::stdio::dup2_stdin(&null).step("close standard input", || "of the launcher".to_owned())
}

fn watch_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised by sigemptyset; the descriptor that signalfd returns is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&raw mut set, signal);
        }
        process::check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        let descriptor = process::check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Reads every signal that came.
pub(super) fn drain(signals: &OwnedFd) -> Signals {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut seen = Signals::Children;
    let mut buffer = [0u8; SIZE];
    while rustix::io::read(signals.as_fd(), &mut buffer) == Ok(SIZE) {
        let number = u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        if number != libc::SIGCHLD as u32 {
            seen = Signals::Stop;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_sandboxes_than_open_files_for_them() {
        assert_eq!(fitting(1024, Some(65_536)), None);
        assert_eq!(fitting(1024, None), None);
        assert_eq!(fitting(1024, Some(1024)), Some(137));
        assert_eq!(fitting(10, Some(10)), Some(0));
    }
}
