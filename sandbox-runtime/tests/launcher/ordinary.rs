//! A launcher of an ordinary user: the same life and end of sandboxes, without root's groups and mounts.

use std::fs;
use std::path::PathBuf;

use ostler_wire::launcher::{Files, Limits};
use rustix::net::{SendFlags, send};

use super::support::{Bench, LIMITS, PATIENCE, SUBORDINATE, cgroups_named, eventually, processes_where};

/// Processes that have one of the user's subordinate ids, or run the guest as the user.
fn processes_of(bench: &Bench) -> Vec<i32> {
    let first = bench.config.uid_first;
    processes_where("status", |status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let uid = line.split_whitespace().next().and_then(|uid| uid.parse::<u32>().ok());
        uid.is_some_and(|uid| (first..first + SUBORDINATE).contains(&uid))
    })
}

#[tokio::test]
async fn an_ordinary_users_sandboxes_share_no_id_and_their_files_are_kept() {
    let bench = Bench::ordinary();
    let (launcher, _) = bench.connect(1).await;
    let [one, other] = [1, 2].map(|number| bench.id(number));
    let first = bench.create(&launcher, &one).await;
    let second = bench.create(&launcher, &other).await;
    assert!(first.info.uid_base.abs_diff(second.info.uid_base) >= 4096, "{:?} {:?}", first.info, second.info);
    assert_eq!(cgroups_named(&one), Vec::<PathBuf>::new(), "no group of the machine's is the user's");
    launcher.destroy(&one, Files::Keep).await.unwrap();
    let again = bench.create(&launcher, &one).await;
    assert_eq!((again.info.restored, again.info.uid_base), (true, first.info.uid_base));
    launcher.destroy(&one, Files::Remove).await.unwrap();
    launcher.destroy(&other, Files::Remove).await.unwrap();
    assert!(!bench.files(&one).exists());
    assert_eq!(processes_of(&bench), Vec::<i32>::new());
}

#[tokio::test]
async fn what_an_ordinary_users_launcher_leaves_when_it_is_killed_is_ended() {
    let mut bench = Bench::ordinary();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let started = bench.create(&launcher, &id).await;
    assert!(!processes_of(&bench).is_empty());
    bench.kill_launcher();
    // Its host is still there, and the sandbox with it. The next launcher ends it, and keeps its files.
    assert!(!processes_of(&bench).is_empty());
    bench.start();
    eventually("the sandbox ends", || processes_of(&bench).is_empty());
    drop(started);
    drop(launcher);
    let (launcher, _) = bench.connect(2).await;
    assert!(bench.create(&launcher, &id).await.info.restored);
}

#[tokio::test]
async fn a_sandbox_that_nobody_can_reach_ends_by_itself() {
    let mut bench = Bench::ordinary();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    bench.kill_launcher();
    drop((launcher, started));
    eventually("the sandbox ends", || processes_of(&bench).is_empty());
}

#[tokio::test]
async fn groups_that_were_given_to_the_user_limit_and_end_its_sandboxes() {
    let bench = Bench::ordinary_with_groups();
    // The log begins with that of root's launcher, and of one without groups.
    let log = bench.log();
    let last = log.rsplit("told to end by a signal").next().unwrap();
    assert!(!last.contains("without root it needs a control group"), "{last}");
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    bench.create(&launcher, &id).await;
    let groups = cgroups_named(&id);
    assert!(groups.len() >= 3, "memory, pids, cpu: {groups:?}");
    let is_below = |group: &PathBuf| bench.delegated().iter().any(|delegated| group.starts_with(delegated));
    assert!(groups.iter().all(is_below), "{groups:?}");
    let read = |file: &str| groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
    let memory = read("memory.limit_in_bytes").or_else(|| read("memory.max")).unwrap();
    assert_eq!(memory.trim(), LIMITS.memory.to_string());
    assert_eq!(read("pids.max").unwrap().trim(), LIMITS.pids.to_string());
    launcher.destroy(&id, Files::Remove).await.unwrap();
    assert_eq!(cgroups_named(&id), Vec::<PathBuf>::new());
    assert_eq!(processes_of(&bench), Vec::<i32>::new());
}

#[tokio::test]
async fn what_an_ordinary_users_sandbox_hides_of_its_files_counts_too() {
    let bench = Bench::new().into_ordinary();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let limits = Limits { disk: 32 << 20, ..LIMITS };
    // What is only mapped the kernel shows to root of the machine alone.
    for (number, hiding) in (1..).zip(["hide 64", "hide-in-thread 64"]) {
        let started = launcher.create(&bench.id(number), &bench.image, limits, PATIENCE).await.unwrap();
        send(&started.control, hiding.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let died = tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap();
        assert!(died.why.starts_with("disk: used "), "{hiding}: {}", died.why);
    }
}
