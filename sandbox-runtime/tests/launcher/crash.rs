//! Workers, hosts and launchers that are killed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ostler_sandbox::client::launcher::Spawned;
use ostler_wire::launcher::Files;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bench, LIMITS, PATIENCE, done, eventually, processes_of, processes_where, words};

#[tokio::test]
async fn a_killed_worker_fails_its_create_and_leaves_nothing() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (parent, stopped) = (bench.pid().to_string(), stop.clone());
    let killer = std::thread::spawn(move || {
        let is_worker = |status: &str| {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            field("PPid:") == Some(&parent) && field("Name:") == Some("ostler-worker")
        };
        while !stopped.load(Ordering::Relaxed) {
            for pid in processes_where("status", is_worker) {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    });
    let mut failed = 0;
    for number in 0..200 {
        let id = bench.id(number);
        match launcher.create(&id, &bench.image, LIMITS, PATIENCE).await {
            Ok(_) => drop(launcher.destroy(&id, Files::Remove).await.unwrap()),
            Err(error) => {
                assert!(words(&error).contains("the worker was killed by signal 9"), "{}", words(&error));
                failed += 1;
            }
        }
        bench.assert_nothing_left(&id);
        assert!(!bench.files(&id).exists());
        if failed == 5 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    killer.join().unwrap();
    assert!(failed > 0, "no worker was caught alive");
    let range = bench.config.uid_first;
    assert_eq!(processes_of(range), Vec::<i32>::new());
    done(&bench.create(&launcher, &bench.id(999)).await.control, "ping");
}

/// Nobody comes after the launcher: what it was making must end by itself, at whatever point it was.
#[tokio::test]
async fn what_a_launcher_was_making_when_it_was_killed_ends_without_another() {
    // With the guest itself, which ends when nobody is at the other end of its socket.
    let mut bench = Bench::with(|config| config.guest = None);
    for round in 0..20u32 {
        let (launcher, _) = bench.connect(u64::from(round) + 1).await;
        let asked: Vec<_> = (0..4)
            .map(|number| {
                let (launcher, image, id) = (launcher.clone(), bench.image.clone(), bench.id(round * 10 + number));
                tokio::spawn(async move { launcher.create(&id, &image, LIMITS, PATIENCE).await.map(drop) })
            })
            .collect();
        // Another point each time: a create takes some 20 ms here.
        tokio::time::sleep(std::time::Duration::from_micros(1500 * u64::from(round))).await;
        bench.kill_launcher();
        for answer in asked {
            let _ = answer.await.unwrap();
        }
        drop(launcher);
        let range = bench.config.uid_first..bench.config.uid_first + 65_536 * bench.config.uid_ranges;
        let has_uid = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            line.split_whitespace().filter_map(|uid| uid.parse::<u32>().ok()).any(|uid| range.contains(&uid))
        };
        eventually("every process ends", || processes_where("status", has_uid).is_empty());
        bench.start();
    }
}

#[tokio::test]
async fn a_new_host_gets_what_lives_and_a_stale_one_is_refused() {
    let bench = Bench::new();
    let (first, _) = bench.connect(5).await;
    let id = bench.id(1);
    let before = bench.create(&first, &id).await;
    done(&before.control, "write /workspace/note here");
    drop((first, before));
    let (second, living) = bench.connect(6).await;
    assert_eq!(living, std::slice::from_ref(&id));
    let again = second.reclaim(&id).await.unwrap();
    assert_eq!(done(&again.control, "read /workspace/note"), "here");
    assert!(!again.info.restored && again.info.pid > 0);
    let stale = ostler_sandbox::client::launcher::Launcher::connect(&bench.config.socket, 5).await.unwrap_err();
    assert!(words(&stale).ends_with("epoch 5 is over: one of epoch 6 was here"), "{}", words(&stale));
    assert_eq!(done(&second.reclaim(&id).await.unwrap().control, "ping"), "");
    let unknown = second.reclaim(&bench.id(2)).await.unwrap_err();
    assert!(words(&unknown).ends_with("does not live"), "{}", words(&unknown));
}

#[tokio::test]
async fn what_an_older_host_was_having_made_is_undone() {
    let bench = Bench::new();
    let (first, _) = bench.connect(1).await;
    let id = bench.id(1);
    let (image, asking) = (bench.image.clone(), id.clone());
    let waiting = tokio::spawn(async move { first.create(&asking, &image, LIMITS, PATIENCE).await });
    tokio::task::yield_now().await;
    let (second, _) = bench.connect(2).await;
    let made = waiting.await.unwrap();
    // Either it was ready before the new host came, or nothing of it is left.
    if let Err(error) = made {
        second.destroy(&id, Files::Keep).await.unwrap();
        bench.assert_nothing_left(&id);
        assert!(!bench.files(&id).exists(), "{}", words(&error));
    }
    second.destroy(&id, Files::Remove).await.unwrap();
    done(&bench.create(&second, &id).await.control, "ping");
}

#[tokio::test]
async fn a_killed_launcher_is_cleaned_up_after_by_the_next() {
    let mut bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let (kept, half_made) = (bench.id(1), bench.id(2));
    let started = bench.create(&launcher, &kept).await;
    let base = started.info.uid_base;
    done(&started.control, "write /workspace/note survives");
    done(&started.control, "spawn");
    // The worker has synced the record when it is gone.
    let record = bench.files(&kept).join("sandbox.json");
    eventually("the record", || record.exists());
    fs::create_dir_all(bench.files(&half_made).join("upper/some/where")).unwrap();
    fs::create_dir_all(bench.config.store.join("trash/old/tree")).unwrap();
    bench.kill_launcher();
    assert!(!processes_of(base).is_empty(), "a crash of the launcher ends nothing");
    bench.start();
    // They were killed; the first process of the machine reaps them, not the launcher.
    eventually("no process is left", || processes_of(base).is_empty());
    let (launcher, living) = bench.connect(2).await;
    assert_eq!(living, Vec::<String>::new());
    assert!(!bench.files(&half_made).exists());
    eventually("the trash is empty", || fs::read_dir(bench.config.store.join("trash")).unwrap().count() == 0);
    bench.assert_nothing_left(&kept);
    let again = bench.create(&launcher, &kept).await;
    assert_eq!((again.info.restored, again.info.uid_base), (true, base));
    assert_eq!(done(&again.control, "read /workspace/note"), "survives");
}

#[tokio::test]
async fn a_request_ends_with_the_connection() {
    let mut bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    bench.kill_launcher();
    let lost = launcher.reclaim(&bench.id(1)).await.unwrap_err();
    assert!(words(&lost).contains("the connection to the launcher ended"), "{}", words(&lost));
}

#[tokio::test]
async fn a_damaged_record_neither_gives_foreign_uids_nor_loses_the_files() {
    let mut bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let first = bench.create(&launcher, &id).await;
    done(&first.control, "write /workspace/note kept");
    let record = bench.files(&id).join("sandbox.json");
    let right = fs::read_to_string(&record).unwrap();
    let base = first.info.uid_base.to_string();
    launcher.destroy(&id, Files::Keep).await.unwrap();
    for (number, wrong) in [
        right.replace(&base, &format!("{:>1$}", 0, base.len())),
        right.replace(&base, "1000"),
        right.replace("\"version\": 1", "\"version\": 9"),
        String::new(),
    ]
    .into_iter()
    .enumerate()
    {
        assert_ne!(wrong, right);
        bench.kill_launcher();
        fs::write(&record, &wrong).unwrap();
        bench.start();
        let lost = bench.config.store.join("lost").join(format!("{id}.{number}"));
        assert_eq!(fs::read_to_string(lost.join("upper/workspace/note")).unwrap(), "kept", "{}", bench.log());
        assert!(!bench.files(&id).exists());
        // The same id begins anew, with uids of ours; then the old files take its place for the next round.
        let (launcher, _) = bench.connect(2 + number as u64).await;
        let again = bench.create(&launcher, &id).await;
        assert!(!again.info.restored && again.info.uid_base >= bench.config.uid_first);
        launcher.destroy(&id, Files::Remove).await.unwrap();
        fs::rename(&lost, bench.files(&id)).unwrap();
        fs::create_dir(&lost).unwrap();
    }
}

#[tokio::test]
async fn kept_files_go_on_with_the_image_that_they_were_made_from() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    done(&bench.create(&launcher, &id).await.control, "write /workspace/note kept");
    launcher.destroy(&id, Files::Keep).await.unwrap();
    // The name now stands for another image, which this store does not even have.
    let other = format!("sha256:{}", "0".repeat(64));
    let again = launcher.create(&id, &other, LIMITS, PATIENCE).await.unwrap();
    assert_eq!(done(&again.control, "read /workspace/note"), "kept");
    let unknown = launcher.create(&bench.id(2), &other, LIMITS, PATIENCE).await.unwrap_err();
    assert!(words(&unknown).contains("unknown image"), "{}", words(&unknown));
}

/// As when a host is started again while the launcher of one that was killed is still starting.
#[test]
fn launchers_that_are_started_at_one_time_become_one() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.kill_launcher();
        let started = std::thread::scope(|scope| {
            let all: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.try_start())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let mut new = Vec::new();
        for one in started {
            if let Spawned::New(child) = one.unwrap_or_else(|error| panic!("{}", words(&error))) {
                new.push(child);
            }
        }
        assert_eq!(new.len(), 1);
        bench.adopt(new.remove(0));
    }
}
