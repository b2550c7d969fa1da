//! A launcher with its own store, state and image, which leaves nothing behind.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ostler_sandbox::client::launcher::{Launcher, Spawned, Started, spawn_launcher};
use ostler_sandbox::launcher::LauncherConfig;
use ostler_sandbox::store::Store;
use ostler_sandbox::store::unpacker::Unpacker;
use ostler_wire::launcher::Limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

pub const LIMITS: Limits = Limits {
    memory: 256 << 20,
    pids: 64,
    cpu_millis: 2000,
    cpu_weight: 100,
    io_weight: 100,
    disk: 1 << 30,
    files: 10_000,
};
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test where it could prove nothing.
pub fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test makes sandboxes and needs root: run it as root");
}

/// The stand-in guest, built once per target directory.
pub fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/guest.rs");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = target.join("stand-in-guest");
        let lock = File::create(target.join("stand-in-guest.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
        let is_current = changed(&program).is_ok_and(|built| built > changed(&source).unwrap());
        if !is_current {
            let status = Command::new("rustc")
                .args(["--edition=2024", "-Copt-level=1", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
                .arg(format!("--target={}-unknown-linux-gnu", std::env::consts::ARCH))
                .arg("-o")
                .arg(&program)
                .arg(&source)
                .status()
                .unwrap();
            assert!(status.success(), "the stand-in guest must build");
        }
        program
    })
}

/// A root file system with a few directories and files.
pub fn root_archive(at: &Path) {
    let mut builder = tar::Builder::new(File::create(at).unwrap());
    let mut entry = |kind, path: &str, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content).unwrap();
    };
    for directory in ["etc", "home", "root", "usr", "proc", "sys", "dev"] {
        entry(tar::EntryType::Directory, directory, 0o755, b"");
    }
    entry(tar::EntryType::Directory, "tmp", 0o1777, b"");
    entry(tar::EntryType::Regular, "etc/hostname", 0o644, b"from-the-image\n");
    builder.into_inner().unwrap();
}

/// A launcher of this test alone.
pub struct Bench {
    pub config: LauncherConfig,
    pub image: String,
    pub directory: tempfile::TempDir,
    /// Tells the benches of one process apart.
    number: u32,
    /// Whether its launcher is an ordinary user's.
    is_ordinary: bool,
    /// Control groups that were given to that user, and that the launcher is started in.
    delegated: Vec<PathBuf>,
    child: Option<Child>,
}

/// Subordinate ids of an ordinary user, as distributions give them.
pub const SUBORDINATE: u32 = 65_536;

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a changed configuration.
    pub fn with(change: impl FnOnce(&mut LauncherConfig)) -> Self {
        static BENCHES: AtomicU32 = AtomicU32::new(0);
        need_root();
        let number = BENCHES.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let archive = path("root.tar");
        root_archive(&archive);
        let store = Store::create(&path("store")).unwrap();
        let unpacker = Unpacker::new(env!("CARGO_BIN_EXE_ostler-sandbox-launcher").into(), "unpack");
        let image = store.import_rootfs_tar(&archive, "base", &unpacker).unwrap().image.to_string();
        let mut config = LauncherConfig::new(path("store"), path("state"), path("socket"));
        config.guest = Some(stand_in().to_owned());
        // Ranges of its own, so that processes can be told apart by their uid: neighbouring process numbers, as test
        // runners have them that give each test a process, never share one.
        config.uid_first = 0x1000_0000 + ((std::process::id() + number) % 384) * 64 * 65_536;
        config.uid_ranges = 64;
        change(&mut config);
        let mut bench =
            Self { config, image, directory, number, is_ordinary: false, delegated: Vec::new(), child: None };
        bench.start();
        bench
    }

    /// With a launcher that an ordinary user starts, who has the first of the bench's uids as subordinate ones.
    pub fn ordinary() -> Self {
        Self::with(|config| config.guest = None).into_ordinary()
    }

    /// Starts the launcher again, as an ordinary user's.
    pub fn into_ordinary(mut self) -> Self {
        let bench = &mut self;
        stop(&mut bench.child);
        if let Some(guest) = &mut bench.config.guest {
            let copy = bench.directory.path().join("guest");
            fs::copy(&*guest, &copy).unwrap();
            *guest = copy;
        }
        bench.is_ordinary = true;
        // In the namespace of its launcher a host of the same user is root.
        (bench.config.host_uid, bench.config.host_gid) = (0, 0);
        let user = bench.user();
        let own = |path: &Path| std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
        // What root has imported becomes the user's: all of it belongs to uid 0 of the image.
        let mut open = vec![bench.directory.path().to_owned()];
        while let Some(directory) = open.pop() {
            own(&directory);
            for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() { open.push(entry.path()) } else { own(&entry.path()) }
            }
        }
        for (name, text) in [
            ("passwd", format!("root:x:0:0::/:/bin/sh\nordinary:x:{user}:{user}::/nonexistent:/bin/sh\n")),
            ("group", format!("root:x:0:\nordinary:x:{user}:\n")),
            ("subuid", format!("ordinary:{}:{SUBORDINATE}\n", bench.config.uid_first)),
            ("subgid", format!("ordinary:{}:{SUBORDINATE}\n", bench.config.uid_first)),
        ] {
            fs::write(bench.directory.path().join(name), text).unwrap();
        }
        bench.start();
        self
    }

    /// [`Bench::ordinary`], started in control groups that were given to its user, one in each hierarchy.
    pub fn ordinary_with_groups() -> Self {
        let mut bench = Self::ordinary();
        stop(&mut bench.child);
        let name = format!("delegated-{}", bench.id(0));
        let root = PathBuf::from("/sys/fs/cgroup");
        let hierarchies = if root.join("cgroup.controllers").exists() {
            vec![root]
        } else {
            ["memory", "pids", "cpu", "unified"].map(|hierarchy| root.join(hierarchy)).into()
        };
        for hierarchy in hierarchies {
            let group = hierarchy.join(&name);
            fs::create_dir(&group).unwrap();
            for place in
                [&group, &group.join("cgroup.procs"), &group.join("tasks"), &group.join("cgroup.subtree_control")]
            {
                let _ = std::os::unix::fs::chown(place, Some(bench.user()), Some(bench.user()));
            }
            bench.delegated.push(group);
        }
        bench.start();
        bench
    }

    pub fn delegated(&self) -> &[PathBuf] {
        &self.delegated
    }

    /// The ordinary user: the last of the bench's own uids.
    pub fn user(&self) -> u32 {
        self.config.uid_first + self.config.uid_ranges * 65_536 - 1
    }

    /// In a mount namespace of its own the machine's users are those of the bench.
    fn as_ordinary_user(&self) -> Command {
        let files = self.directory.path().display();
        let user = self.user();
        let groups: String = self
            .delegated
            .iter()
            .map(|group| format!("echo $$ > {}/cgroup.procs || exit 1\n", group.display()))
            .collect();
        let script = format!(
            "{groups}for name in passwd group subuid subgid; do [ -e /etc/$name ] || : > /etc/$name; mount --bind {files}/$name /etc/$name || exit 1; done
            touch {files}/program && mount --bind \"$1\" {files}/program && cd / &&
            exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all {files}/program \"$2\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command
    }

    /// Starts the launcher, again after it was killed.
    pub fn start(&mut self) {
        let spawned = self.try_start().unwrap_or_else(|error| panic!("{error}"));
        let Spawned::New(child) = spawned else { panic!("a launcher runs already") };
        self.child = Some(child);
    }

    /// Has a launcher that [`Bench::try_start`] started.
    pub fn adopt(&mut self, child: Child) {
        self.child = Some(child);
    }

    pub fn try_start(&self) -> Result<Spawned, ostler_sandbox::client::launcher::LauncherClientError> {
        let program = env!("CARGO_BIN_EXE_ostler-sandbox-launcher");
        let mut command = if self.is_ordinary {
            let mut command = self.as_ordinary_user();
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg(self.config.to_argument().unwrap());
        spawn_launcher(command, &self.config.socket, &self.log_path(), PATIENCE)
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("launcher.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub async fn connect(&self, epoch: u64) -> (Launcher, Vec<String>) {
        // A launcher takes its own user for the host. The one thread of the test is that user while it connects.
        let act_as = |user: u32| {
            let [root, user] = [0, user].map(rustix::process::Uid::from_raw);
            rustix::thread::set_thread_res_uid(root, user, root).unwrap();
        };
        if self.is_ordinary {
            act_as(self.user());
        }
        let connected = Launcher::connect(&self.config.socket, epoch).await;
        if self.is_ordinary {
            act_as(0);
        }
        connected.unwrap_or_else(|error| panic!("{}\n{}", words(&error), self.log()))
    }

    pub async fn create(&self, launcher: &Launcher, id: &str) -> Started {
        let made = launcher.create(id, &self.image, LIMITS, PATIENCE).await;
        made.unwrap_or_else(|error| panic!("{}\n{}", words(&error), self.log()))
    }

    /// Kills the launcher like a crash would.
    pub fn kill_launcher(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the launcher to end by itself.
    pub fn wait_for_end(&mut self) {
        let child = self.child.as_mut().unwrap();
        eventually("the launcher ends", || child.try_wait().unwrap().is_some());
        assert!(self.child.take().unwrap().wait().unwrap().success(), "{}", self.log());
    }

    /// Nothing of a sandbox may be left but, if they are kept, its files.
    pub fn assert_nothing_left(&self, id: &str) {
        assert_eq!(cgroups_named(id), Vec::<PathBuf>::new());
        assert_eq!(mounts_with(self.directory.path().to_str().unwrap()), Vec::<String>::new());
        assert_eq!(fs::read_dir(self.config.store.join("trash")).unwrap().count(), 0);
    }

    /// A sandbox id; `number` tells those of one bench apart.
    pub fn id(&self, number: u32) -> String {
        format!("{:010}{:08}{number:08}", std::process::id(), self.number)
    }

    pub fn files(&self, id: &str) -> PathBuf {
        self.config.store.join("sandboxes").join(id)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        stop(&mut self.child);
        for group in &self.delegated {
            eventually("a group of the test is empty", || fs::remove_dir(group).is_ok());
        }
    }
}

fn stop(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // SIGTERM ends every sandbox before the launcher.
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = child.wait();
    }
}

/// An error with its sources.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Waits until something that cannot be waited for by descriptor is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks the stand-in and returns its whole answer.
pub fn ask(control: &OwnedFd, request: &str) -> String {
    send(control, request.as_bytes(), SendFlags::NOSIGNAL).unwrap();
    readable(control.as_fd());
    let mut buffer = vec![0; 65536];
    let (length, _) = recv(control, buffer.as_mut_slice(), RecvFlags::DONTWAIT).unwrap();
    assert!(length > 0, "the stand-in hung up on {request:?}");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Asks for something that must work, and returns what comes after `ok`.
pub fn done(control: &OwnedFd, request: &str) -> String {
    let answer = ask(control, request);
    let rest = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{request:?}: {answer}"));
    rest.trim_start().to_owned()
}

/// Waits until a descriptor has something to read.
pub fn readable(descriptor: std::os::fd::BorrowedFd<'_>) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "nothing to read within {PATIENCE:?}");
}

/// Directories of control groups with this name, in every hierarchy.
pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name() == name {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}

/// Mounts of this test's own namespace that mention a path.
pub fn mounts_with(path: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(path)).map(str::to_owned).collect()
}

/// Processes whose `/proc/<pid>/<file>` fulfils a condition.
pub fn processes_where(file: &str, is_so: impl Fn(&str) -> bool) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &i32| fs::read_to_string(format!("/proc/{pid}/{file}")).is_ok_and(|text| is_so(&text)))
        .collect()
}

/// Processes that have a uid of the range beginning at `base`.
pub fn processes_of(base: u32) -> Vec<i32> {
    processes_where("status", |status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        line.split_whitespace()
            .filter_map(|uid| uid.parse::<u32>().ok())
            .any(|uid| (base..base + 65_536).contains(&uid))
    })
}
