//! What reads an archive during an import: what it is, what it could do if an archive took it over, and what its end means.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ostler_sandbox::defence::{Defence, Weakened};
use ostler_sandbox::store::unpacker::{NAME, Trial, Unpacker};
use ostler_sandbox::store::{Imported, Store, StoreError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::canonical::{canonical, outside};
use crate::support::{eventually, need_root, processes_where, root_archive, words};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ostler-sandbox-launcher");

/// A store with an archive beside it.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
    unpacker: Unpacker,
}

impl Place {
    fn new(trial: Trial) -> Self {
        need_root();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        root_archive(&directory.path().join("root.tar"));
        let mut unpacker = Unpacker::new(PROGRAM.into(), "unpack");
        unpacker.trial = Some(trial);
        // A range of its own, so that the process can be told apart by its uid.
        unpacker.uid_base = 0x0800_0000 + (std::process::id() % 1024) * 65_536;
        Self { directory, store, unpacker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn import(&self) -> Result<Imported, StoreError> {
        self.store.import_rootfs_tar(&self.path("root.tar"), "base", &self.unpacker)
    }

    /// Imports in a thread, and waits until the process that reads the archive is as confined as it gets.
    fn hold(&self, archive: &str) -> (JoinHandle<Result<Imported, StoreError>>, i32) {
        let (store, unpacker, archive) = (self.store.clone(), self.unpacker.clone(), self.path(archive));
        let import = std::thread::spawn(move || store.import_rootfs_tar(&archive, "base", &unpacker));
        let mut found = Vec::new();
        eventually("the archive is about to be read", || {
            assert!(!import.is_finished(), "the import ended");
            found = self.readers();
            !found.is_empty()
        });
        (import, found[0])
    }

    /// Processes that would read the archive, once they have their filter.
    fn readers(&self) -> Vec<i32> {
        let own = format!("Uid:\t{}\t", self.unpacker.uid_base);
        let name = format!("Name:\t{NAME}\n");
        processes_where("status", |status| {
            status.starts_with(&name) && status.contains(&own) && status.contains("Seccomp:\t2")
        })
    }

    /// What was tried from within, a line for each.
    fn attempts(&self) -> String {
        self.import().unwrap_or_else(|error| panic!("{}", words(&error)));
        let layer = fs::read_dir(self.path("store/layers")).unwrap().next().unwrap().unwrap().path();
        fs::read_to_string(layer.join("attempts")).unwrap()
    }

    fn assert_nothing_left(&self) {
        for folder in ["tmp", "layers", "names", "blobs/sha256"] {
            assert_eq!(fs::read_dir(self.path("store").join(folder)).unwrap().count(), 0, "{folder}");
        }
        // It can do nothing any more, but may still be in the table.
        eventually("no reader is left", || self.readers().is_empty());
    }
}

fn end(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// As of a sandbox, with the limits that it has of its own.
fn posture(place: &Place, pid: i32) -> Value {
    let mut raw = outside(pid);
    let limits = raw["limits"].clone();
    let spaces = ["address space", "cpu time", "file size", "open files", "processes"];
    // How large the program is differs from build to build.
    let space: u64 = limits["address space"][0].as_str().unwrap().parse().unwrap();
    assert!((512 << 20..1 << 30).contains(&space), "{space}");
    raw["cgroup"] = json!([]);
    let mut posture = canonical(raw, place.unpacker.uid_base);
    for name in spaces {
        let [soft, hard] = [0, 1].map(|index| limits[name][index].as_str().unwrap());
        posture["limits"][name] = json!(format!("{soft} {hard}"));
    }
    posture["limits"]["address space"] = json!("512 MiB and the program");
    posture.as_object_mut().unwrap().remove("cgroup");
    for (_, target) in posture["descriptors"].as_object_mut().unwrap() {
        if target.as_str().unwrap().starts_with(place.directory.path().to_str().unwrap()) {
            *target = json!("a file of the store");
        }
    }
    for mount in posture["mounts"].as_array_mut().unwrap() {
        let line = mount.as_str().unwrap();
        if let Some(options) = line.strip_prefix("/target ") {
            // Which disk it lies on is the machine's business.
            let options = options.split(' ').nth(1).unwrap();
            *mount = json!(format!("/target the machine's {options}"));
        }
    }
    posture
}

#[test]
fn the_posture_of_what_reads_an_archive_is_this_and_no_other() {
    let place = Place::new(Trial::Hold);
    let (import, pid) = place.hold("root.tar");
    let unpacking = posture(&place, pid);
    insta::assert_snapshot!("unpacker", serde_json::to_string_pretty(&unpacking).unwrap());
    end(pid);
    import.join().unwrap().unwrap_err();

    let packed = File::create(place.path("root.tar.gz")).unwrap();
    let gzip = Command::new("gzip").arg("-c").arg(place.path("root.tar")).stdout(packed).status().unwrap();
    assert!(gzip.success());
    let (import, pid) = place.hold("root.tar.gz");
    let mut decompressing = posture(&place, pid);
    end(pid);
    import.join().unwrap().unwrap_err();
    assert_eq!(decompressing["descriptors"]["5"], json!("a file of the store"), "where the plain archive goes");
    assert_eq!(decompressing["directory"], json!("/"));
    decompressing["descriptors"] = unpacking["descriptors"].clone();
    decompressing["directory"] = unpacking["directory"].clone();
    decompressing["mounts"].as_array_mut().unwrap().push(unpacking["mounts"][1].clone());
    assert_eq!(decompressing, unpacking, "it has one more file and no folder, and differs in nothing else");
    place.assert_nothing_left();
}

#[test]
fn an_archive_that_takes_over_what_reads_it_reaches_nothing_but_its_own_image() {
    insta::assert_snapshot!("unpacker_attempts", Place::new(Trial::Attempt).attempts());
}

/// A defence that makes no difference would prove nothing above.
#[test]
fn each_defence_of_what_reads_an_archive_is_one() {
    let whole = Place::new(Trial::Attempt).attempts();
    for (defence, gets_through) in [
        (Defence::OwnRoot, vec!["open /etc/passwd: done", "open /proc/self/status: done", "open /dev/null: done"]),
        // What is refused on purpose is refused twice, where there is a second wall.
        (
            Defence::SystemCallFilter,
            vec![
                "an internet socket: done",
                "a unix socket: done",
                "another process: Resource temporarily unavailable (os error 11)",
            ],
        ),
    ] {
        let mut place = Place::new(Trial::Attempt);
        place.unpacker.weakened = Weakened(vec![defence]);
        let weaker = place.attempts();
        for line in gets_through {
            assert!(weaker.lines().any(|found| found == line), "{defence:?}: {line}\n{weaker}");
            assert!(!whole.lines().any(|found| found == line), "{defence:?}: {line}\n{whole}");
        }
    }
    let mut place = Place::new(Trial::Attempt);
    place.unpacker.weakened = Weakened(vec![Defence::SystemCallFilter, Defence::FewCapabilities]);
    let weaker = place.attempts();
    for line in ["another root: done", "be of another group: done"] {
        assert!(weaker.lines().any(|found| found == line), "{line}\n{weaker}");
    }
}

#[test]
fn whoever_ends_what_reads_an_archive_ends_the_import_with_a_reason_and_nothing_stays() {
    let place = Place::new(Trial::Hold);
    let (import, pid) = place.hold("root.tar");
    end(pid);
    let refused = import.join().unwrap().unwrap_err();
    let said = "ended by signal 9: killed, by somebody or because the machine had no memory left";
    assert!(refused.to_string().ends_with(said), "{refused}");
    place.assert_nothing_left();

    // The process between the two.
    let (import, pid) = place.hold("root.tar");
    end(parent_of(pid));
    let refused = import.join().unwrap().unwrap_err();
    assert!(refused.to_string().ends_with("ended without a word; it was killed"), "{refused}");
    place.assert_nothing_left();
}

#[test]
fn an_archive_that_takes_too_long_or_all_memory_is_given_up() {
    let mut place = Place::new(Trial::Hold);
    place.unpacker.bounds.time = Duration::from_millis(300);
    let refused = place.import().unwrap_err();
    assert!(matches!(refused, StoreError::TooLong { .. }), "{refused}");
    place.assert_nothing_left();
    let refused = Place::new(Trial::Fill).import().unwrap_err();
    let said = "it wanted more than 512 MiB of memory, or has a defect";
    assert!(refused.to_string().ends_with(said), "{refused}");
}

#[test]
fn what_reads_an_archive_has_one_word_to_say() {
    let place = Place::new(Trial::Babble);
    let refused = place.import().unwrap_err();
    assert!(refused.to_string().ends_with("it said what such a process does not say"), "{refused}");
    place.assert_nothing_left();
}

/// As when an import is killed: the kernel tells by the thread that started a process.
#[test]
fn nothing_goes_on_without_the_import() {
    let place = Place::new(Trial::Hold);
    let (_ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let target = place.path("store/tmp/tree");
    fs::create_dir(&target).unwrap();
    let plan = json!({
        "task": {"Unpack": target},
        "place": place.path("store/tmp"),
        "uid_base": place.unpacker.uid_base,
        "bytes": 1 << 20,
        "entries": 100,
        "seconds": 100,
        "weakened": [],
        "trial": "Hold",
    });
    let archive = File::open(place.path("root.tar")).unwrap();
    let (started, wait) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let importing = std::thread::spawn(move || {
        started.0.send(start(&plan, archive, theirs)).unwrap();
        wait.1.recv().unwrap();
    });
    let mut child = started.1.recv().unwrap();
    eventually("the archive is about to be read", || place.readers().len() == 1);
    wait.0.send(()).unwrap();
    importing.join().unwrap();
    eventually("both processes end", || place.readers().is_empty() && child.try_wait().unwrap().is_some());
}

fn start(plan: &Value, archive: File, report: OwnedFd) -> std::process::Child {
    let mut command = Command::new(Path::new(PROGRAM));
    command.arg("unpack").arg(plan.to_string()).env_clear();
    command.stdin(archive).stdout(report).stderr(Stdio::null()).spawn().unwrap()
}
