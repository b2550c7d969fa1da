//! Making, keeping, finding again and ending sandboxes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use ostler_sandbox::client::launcher::{LauncherClientError, Spawned};
use ostler_wire::FailureKind;
use ostler_wire::launcher::Files;

use crate::support::{Bench, LIMITS, PATIENCE, done, processes_of, words};

#[tokio::test]
async fn a_destroyed_sandbox_leaves_nothing_behind() {
    let bench = Bench::new();
    let (launcher, living) = bench.connect(1).await;
    assert_eq!(living, Vec::<String>::new());
    let id = bench.id(1);
    let started = bench.create(&launcher, &id).await;
    assert_eq!((started.info.sandbox.as_str(), started.info.restored), (id.as_str(), false));
    assert_eq!(done(&started.control, "ping"), "");
    assert_eq!(done(&started.control, "read /etc/hostname"), "from-the-image\n");
    done(&started.control, "spawn");
    let base = started.info.uid_base;
    assert_eq!(processes_of(base).len(), 2, "PID 1 and what it started");
    launcher.destroy(&id, Files::Remove).await.unwrap();
    assert_eq!(processes_of(base), Vec::<i32>::new());
    bench.assert_nothing_left(&id);
    assert!(!bench.files(&id).exists());
    launcher.destroy(&id, Files::Remove).await.expect("one that does not live is no error");
}

#[tokio::test]
async fn kept_files_are_found_again_with_the_same_uids() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let (first, other) = (bench.id(1), bench.id(2));
    let started = bench.create(&launcher, &first).await;
    let base = started.info.uid_base;
    done(&started.control, "write /workspace/note remember");
    done(&started.control, "write /etc/hostname changed");
    launcher.destroy(&first, Files::Keep).await.unwrap();
    bench.assert_nothing_left(&first);
    let other_base = bench.create(&launcher, &other).await.info.uid_base;
    assert_ne!(other_base, base, "kept files keep their range");
    let again = bench.create(&launcher, &first).await;
    assert_eq!((again.info.uid_base, again.info.restored), (base, true));
    assert_eq!(done(&again.control, "read /workspace/note"), "remember");
    assert_eq!(done(&again.control, "read /etc/hostname"), "changed");
    let on_disk = fs::metadata(bench.files(&first).join("upper/workspace/note")).unwrap();
    assert_eq!((on_disk.uid(), on_disk.gid()), (base, base));
    launcher.destroy(&first, Files::Keep).await.unwrap();
    launcher.destroy(&first, Files::Remove).await.unwrap();
    assert!(!bench.files(&first).exists(), "kept files can be removed later");
}

#[tokio::test]
async fn a_sandbox_sees_its_image_as_its_own_and_cannot_change_it() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let (first, second) = (bench.id(1), bench.id(2));
    let one = bench.create(&launcher, &first).await;
    assert_eq!(done(&one.control, "stat /etc/hostname"), "0 0 100644");
    assert_eq!(done(&one.control, "stat /workspace"), "0 0 40755");
    assert_eq!(done(&one.control, "stat /tmp"), "0 0 41777");
    done(&one.control, "write /etc/hostname mine");
    let two = bench.create(&launcher, &second).await;
    assert_eq!(done(&two.control, "read /etc/hostname"), "from-the-image\n");
}

#[tokio::test]
async fn fifty_sandboxes_eight_at_a_time() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (launcher, gate, image, id) = (launcher.clone(), gate.clone(), bench.image.clone(), bench.id(number));
        tasks.spawn(async move {
            let _turn = gate.acquire_owned().await.unwrap();
            let started = launcher.create(&id, &image, LIMITS, PATIENCE).await.map_err(|error| words(&error)).unwrap();
            let pong = tokio::task::spawn_blocking(move || (done(&started.control, "ping"), started.info.uid_base));
            let base = pong.await.unwrap().1;
            launcher.destroy(&id, Files::Remove).await.unwrap();
            (id, base)
        });
    }
    let ended = tasks.join_all().await;
    assert_eq!(ended.len(), 50);
    for (id, base) in ended {
        bench.assert_nothing_left(&id);
        assert_eq!(processes_of(base), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn living_sandboxes_never_share_uids() {
    let bench = Bench::with(|config| config.uid_ranges = 3);
    let (launcher, _) = bench.connect(1).await;
    let mut bases = Vec::new();
    for number in 0..3 {
        bases.push(bench.create(&launcher, &bench.id(number)).await.info.uid_base);
    }
    let first = bench.config.uid_first;
    assert_eq!(bases, [first, first + 65_536, first + 2 * 65_536]);
    let refused = launcher.create(&bench.id(3), &bench.image, LIMITS, PATIENCE).await.unwrap_err();
    assert!(words(&refused).ends_with("lease uids: every range of uids is in use"), "{}", words(&refused));
}

#[tokio::test]
async fn a_death_is_announced_with_its_reason_and_files_are_kept() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let id = bench.id(1);
    let started = bench.create(&launcher, &id).await;
    done(&started.control, "write /workspace/note last");
    rustix::net::send(&started.control, b"exit 7", rustix::net::SendFlags::empty()).unwrap();
    let died = tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap();
    assert_eq!((died.sandbox.as_str(), died.why.as_str()), (id.as_str(), "its first process exited with status 7"));
    bench.assert_nothing_left(&id);
    let again = bench.create(&launcher, &id).await;
    assert_eq!(done(&again.control, "read /workspace/note"), "last");
}

#[tokio::test]
async fn a_create_that_cannot_be_done_in_time_leaves_nothing() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let late = launcher.create(&id, &bench.image, LIMITS, Duration::from_millis(1)).await.unwrap_err();
    let LauncherClientError::Refused { source, .. } = &late else { panic!("{}", words(&late)) };
    assert_eq!(source.kind, FailureKind::Limit, "{source}");
    bench.assert_nothing_left(&id);
    assert!(!bench.files(&id).exists());
    done(&bench.create(&launcher, &id).await.control, "ping");
}

#[tokio::test]
async fn an_unknown_image_is_refused_with_the_names_that_exist() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let unknown = format!("sha256:{}", "0".repeat(64));
    let refused = launcher.create(&bench.id(1), &unknown, LIMITS, PATIENCE).await.unwrap_err();
    assert!(
        words(&refused).ends_with(&format!("unknown image {unknown:?}; the store has: base")),
        "{}",
        words(&refused)
    );
    assert!(!bench.files(&bench.id(1)).exists());
}

#[tokio::test]
async fn a_second_launcher_on_the_same_state_says_who_holds_it() {
    let bench = Bench::new();
    assert!(matches!(bench.try_start().unwrap(), Spawned::Running));
    fs::remove_file(&bench.config.socket).unwrap();
    let refused = words(&bench.try_start().unwrap_err());
    assert!(refused.contains(&format!("another launcher (process {}) already uses", bench.pid())), "{refused}");
}

#[tokio::test]
async fn shutdown_ends_everything_and_keeps_files() {
    let mut bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let started = bench.create(&launcher, &id).await;
    done(&started.control, "write /workspace/note kept");
    launcher.shutdown().await.unwrap();
    bench.wait_for_end();
    bench.assert_nothing_left(&id);
    assert!(!bench.config.socket.exists());
    bench.start();
    let (launcher, living) = bench.connect(1).await;
    assert_eq!(living, Vec::<String>::new());
    assert_eq!(done(&bench.create(&launcher, &id).await.control, "read /workspace/note"), "kept");
}

#[tokio::test]
async fn a_launcher_without_a_host_ends_after_its_grace_time() {
    let mut bench = Bench::with(|config| config.grace = Duration::from_millis(300));
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let base = bench.create(&launcher, &id).await.info.uid_base;
    drop(launcher);
    // The connection ends with its task, which notices the dropped handle.
    tokio::time::timeout(
        PATIENCE,
        tokio::task::spawn_blocking(move || {
            bench.wait_for_end();
            bench.assert_nothing_left(&id);
            assert!(bench.files(&id).join("sandbox.json").exists());
            assert_eq!(processes_of(base), Vec::<i32>::new());
        }),
    )
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn a_create_that_nobody_waits_for_any_more_is_undone() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let create = launcher.create(&id, &bench.image, LIMITS, PATIENCE);
    assert!(tokio::time::timeout(Duration::from_millis(1), create).await.is_err());
    // A request behind it in the queue is answered, so that one was sent.
    while !matches!(&launcher.reclaim(&id).await, Err(error) if words(error).ends_with("does not live")) {}
    // Waits for an end that has begun.
    launcher.destroy(&id, Files::Keep).await.unwrap();
    assert!(!bench.files(&id).exists());
    done(&bench.create(&launcher, &id).await.control, "ping");
}
