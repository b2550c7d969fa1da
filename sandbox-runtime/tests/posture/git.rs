//! The sandbox in which git works on one repository: what it is, whole, and what git can do in it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ostler_sandbox::client::guest::{Deadlines, Guest, Running};
use ostler_sandbox::client::launcher::{Launcher, LauncherClientError};
use ostler_wire::guest::{Exec, MIN_TAIL, Overflow, Stdio};
use ostler_wire::launcher::{Limits, REPOSITORY, RepositoryAccess, Sandbox};
use ostler_wire::{Failure, FailureKind};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::canonical::{canonical, outside};
use crate::support::{Bench, PATIENCE, eventually, processes_of, words};

/// Somebody on the machine who is not root.
const OWNER: u32 = 4242;

const LIMITS: Limits = Limits {
    memory: 128 << 20,
    pids: 32,
    cpu_millis: 1000,
    cpu_weight: 100,
    io_weight: 100,
    disk: 1 << 30,
    files: 1_000_000,
};

/// A launcher with a forge that holds the repositories `demo` and `other`.
fn bench() -> Bench {
    let bench = Bench::with(|config| {
        config.guest = None;
        config.host_uid = OWNER;
        config.host_gid = OWNER;
        config.forge = Some(config.store.with_file_name("forge"));
    });
    for name in ["demo", "other"] {
        make_repository(&repository(&bench, name));
    }
    bench
}

fn repository(bench: &Bench, name: &str) -> PathBuf {
    bench.config.forge.as_ref().unwrap().join(format!("{name}.git"))
}

fn make_repository(at: &Path) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let mut command = std::process::Command::new("git");
    command.args(["init", "-q", "--bare", "--template=", "-b", "main"]).arg(at).env("GIT_CONFIG_NOSYSTEM", "1");
    assert!(command.status().unwrap().success());
    give_away(at);
}

/// A tree to the owner, links themselves.
fn give_away(tree: &Path) {
    std::os::unix::fs::lchown(tree, Some(OWNER), Some(OWNER)).unwrap();
    if fs::symlink_metadata(tree).unwrap().is_dir() {
        fs::read_dir(tree).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}

/// A sandbox for git.
struct Open {
    guest: Guest,
    sandbox: Sandbox,
}

async fn open(bench: &Bench, launcher: &Launcher, access: RepositoryAccess) -> Open {
    static SANDBOXES: AtomicU32 = AtomicU32::new(1);
    let id = bench.id(SANDBOXES.fetch_add(1, Ordering::Relaxed));
    let opened = launcher.open_repository(&id, "demo", access, LIMITS, PATIENCE).await;
    let opened = opened.unwrap_or_else(|error| panic!("{}\n{}", words(&error), bench.log()));
    let guest = Guest::connect(opened.control, 1, Deadlines::default()).await;
    Open { guest: guest.unwrap_or_else(|error| panic!("{}", words(&error))), sandbox: opened.info }
}

impl Open {
    async fn start(&self, stdio: Stdio, argv: &[&str]) -> Running {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let exec = Exec {
            call: format!("git-{}", CALLS.fetch_add(1, Ordering::Relaxed)),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("HOME".to_owned(), "/".to_owned())],
            cwd: REPOSITORY.to_owned(),
            timeout_ms: 30_000,
            output_limit: 16 * MIN_TAIL,
            overflow: Overflow::DropHead,
            stdio,
            label: String::new(),
        };
        self.guest.exec(exec).await.unwrap_or_else(|error| panic!("{argv:?}: {}", words(&error)))
    }

    /// Exit status and everything that was printed.
    async fn run(&self, argv: &[&str]) -> (i32, String) {
        let mut running = self.start(Stdio::Merged, argv).await;
        let mut said = Vec::new();
        running.output.read_to_end(&mut said).await.unwrap();
        let exit = running.exit().await.unwrap().exit.unwrap();
        (exit.status, String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// What a program in it is, read from outside.
    async fn posture(&self) -> Value {
        let running = self.start(Stdio::Piped, &["cat"]).await;
        let inside = format!("\t{}", running.pid.unwrap());
        let base = self.sandbox.uid_base;
        let is_it = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with(&inside))
        };
        let found: Vec<i32> = processes_of(base).into_iter().filter(is_it).collect();
        let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        eventually("cat runs", || name(found[0]) == "cat\n");
        let mut posture = canonical(outside(found[0]), base);
        posture.as_object_mut().unwrap().remove("cgroup");
        for mount in posture["mounts"].as_array_mut().unwrap() {
            *mount = json!(without_disks(mount.as_str().unwrap()));
        }
        // A link on some machines, a folder of its own on others.
        let merged =
            |mount: &Value| !mount.as_str().is_some_and(|line| line.starts_with("/lib") || line.contains("bin "));
        posture["mounts"].as_array_mut().unwrap().retain(merged);
        posture
    }
}

/// Which disks a machine has is its own business.
fn without_disks(line: &str) -> String {
    let mut parts = line.splitn(4, ' ');
    let (point, kind, options) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    match kind {
        "tmpfs" | "proc" => line.to_owned(),
        _ => format!("{point} the machine's {options}"),
    }
}

#[tokio::test]
async fn the_posture_of_git_is_this_and_no_other() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let reader = open(&bench, &launcher, RepositoryAccess::Read).await.posture().await;
    insta::assert_snapshot!("git", serde_json::to_string_pretty(&reader).unwrap());
    let mut writer = open(&bench, &launcher, RepositoryAccess::Write).await.posture().await;
    let mounts = writer["mounts"].as_array_mut().unwrap();
    let repository = mounts.iter_mut().find(|mount| mount.as_str().unwrap().starts_with(REPOSITORY)).unwrap();
    assert!(repository.as_str().unwrap().contains(",rw"), "{repository}");
    *repository = json!(repository.as_str().unwrap().replace(",rw", ",ro"));
    assert_eq!(writer, reader, "a writer differs in this alone");
}

#[tokio::test]
async fn git_reads_and_writes_the_one_repository_as_its_owner() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let writer = open(&bench, &launcher, RepositoryAccess::Write).await;
    let made = "tree=$(git mktree </dev/null) && commit=$(GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
                GIT_COMMITTER_EMAIL=a@b git commit-tree -m one $tree) && git update-ref refs/heads/main $commit && echo $commit";
    let (status, commit) = writer.run(&["sh", "-c", made]).await;
    assert_eq!((status, commit.len()), (0, 40), "{commit}");
    let reference = repository(&bench, "demo").join("refs/heads/main");
    assert_eq!(fs::read_to_string(&reference).unwrap().trim(), commit);
    let made = fs::metadata(&reference).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((made.uid(), made.gid()), (OWNER, OWNER));
    let reader = open(&bench, &launcher, RepositoryAccess::Read).await;
    assert_eq!(reader.run(&["git", "rev-parse", "main"]).await, (0, commit.clone()));
    let (status, said) = reader.run(&["git", "update-ref", "refs/heads/other", &commit]).await;
    assert_ne!(status, 0);
    assert!(said.contains("Read-only file system"), "{said}");
}

#[tokio::test]
async fn nothing_else_of_the_machine_is_there_and_nothing_else_can_be_written() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let writer = open(&bench, &launcher, RepositoryAccess::Write).await;
    let (_, listed) = writer.run(&["ls", "-A", "/", "/etc"]).await;
    let expected = "/:\nbin\ndev\netc\nlib\nproc\nrepository\nsbin\ntmp\nusr\n\n/etc:\ngroup\npasswd";
    let kept: Vec<&str> = listed.lines().filter(|line| !["lib32", "lib64", "libx32"].contains(line)).collect();
    assert_eq!(kept.join("\n"), expected);
    for place in ["/new", "/etc/new", "/usr/new", "/usr/bin/new", "/dev/new", "/proc/new"] {
        let (status, said) = writer.run(&["sh", "-c", &format!("echo x > {place}")]).await;
        // The folder of devices is one of the sandbox's own.
        assert_eq!(status != 0, place != "/dev/new", "{place}: {said}");
    }
    // Neither what is in the repository nor what is in the scratch folder is executed.
    for place in ["/repository/program", "/tmp/program"] {
        let (status, said) = writer.run(&["sh", "-c", &format!("cp /usr/bin/true {place} && {place}")]).await;
        assert_eq!(status, 126, "{place}: {said}");
    }
}

#[tokio::test]
async fn no_socket_but_between_processes_can_be_made() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let git = open(&bench, &launcher, RepositoryAccess::Read).await;
    let (status, said) = git.run(&["git", "ls-remote", "git://127.0.0.1/x"]).await;
    assert_ne!(status, 0);
    assert!(said.contains("Address family not supported by protocol"), "{said}");
}

#[tokio::test]
async fn what_wants_all_memory_ends_its_sandbox_and_no_other() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let [greedy, other] =
        [open(&bench, &launcher, RepositoryAccess::Read).await, open(&bench, &launcher, RepositoryAccess::Read).await];
    // A buffer that is larger than the limit, filled.
    let mut running = greedy.start(Stdio::Merged, &["dd", "if=/dev/zero", "of=/dev/null", "bs=1G", "count=1"]).await;
    let mut said = Vec::new();
    let _ = running.output.read_to_end(&mut said).await;
    assert!(running.exit().await.is_err(), "its sandbox ended before it could tell");
    let died = tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap();
    assert_eq!(died.sandbox, greedy.sandbox.sandbox);
    assert!(died.why.starts_with("out of memory: used"), "{}", died.why);
    assert_eq!(other.run(&["git", "rev-parse", "--is-bare-repository"]).await, (0, "true".to_owned()));
}

#[tokio::test]
async fn links_and_folders_of_others_are_not_opened() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let forge = bench.config.forge.clone().unwrap();
    std::os::unix::fs::symlink(repository(&bench, "demo"), forge.join("link.git")).unwrap();
    fs::create_dir(forge.join("foreign.git")).unwrap();
    chown(forge.join("foreign.git"), Some(OWNER + 1), Some(OWNER)).unwrap();
    let mut number = 100;
    for (name, kind) in [
        ("absent", FailureKind::NotFound),
        ("link", FailureKind::System),
        ("foreign", FailureKind::Invalid),
        ("../forge/demo", FailureKind::Invalid),
    ] {
        number += 1;
        let refused = launcher.open_repository(&bench.id(number), name, RepositoryAccess::Read, LIMITS, PATIENCE).await;
        let Err(LauncherClientError::Refused { source, .. }) = refused else { panic!("{name} was opened") };
        assert_eq!(source.kind, kind, "{name}: {source}");
    }
}

#[tokio::test]
async fn a_launcher_whose_host_is_root_or_that_has_no_forge_opens_none() {
    let refused = async |change: fn(&mut ostler_sandbox::launcher::LauncherConfig)| -> Failure {
        let bench = Bench::with(change);
        let (launcher, _) = bench.connect(1).await;
        match launcher.open_repository(&bench.id(1), "demo", RepositoryAccess::Read, LIMITS, PATIENCE).await {
            Err(LauncherClientError::Refused { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    let of_root = refused(|config| config.forge = Some(config.store.with_file_name("forge"))).await;
    assert_eq!((of_root.kind, of_root.detail.contains("belongs to root")), (FailureKind::Invalid, true), "{of_root}");
    assert_eq!(refused(|_| {}).await.kind, FailureKind::NotFound);
}

/// It belongs to the host that asked for it, and the next one gets none before it is gone.
#[tokio::test]
async fn a_host_that_goes_takes_its_gits_along() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let git = open(&bench, &launcher, RepositoryAccess::Write).await;
    let old = git.sandbox.pid;
    let _running = git.start(Stdio::Piped, &["cat"]).await;
    let (second, living) = bench.connect(2).await;
    assert_eq!(living, Vec::<String>::new());
    let opened =
        second.open_repository(&bench.id(200), "demo", RepositoryAccess::Write, LIMITS, PATIENCE).await.unwrap();
    assert!(!Path::new(&format!("/proc/{old}")).exists(), "two hosts' gits live");
    second.destroy(&opened.info.sandbox, ostler_wire::launcher::Files::Keep).await.unwrap();
    bench.assert_nothing_left(&opened.info.sandbox);
    assert_eq!(fs::read_dir(bench.config.store.join("sandboxes")).unwrap().count(), 0, "git has no files to keep");
}
