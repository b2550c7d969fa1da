//! What a sandbox may use, and what happens when it uses more.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ostler_sandbox::client::launcher::{Died, Launcher, Started};
use ostler_wire::launcher::{Files, Limits};
use tokio::sync::broadcast::Receiver;

use crate::support::{Bench, LIMITS, PATIENCE, ask, cgroups_named, done, processes_of, words};

async fn create(bench: &Bench, launcher: &Launcher, number: u32, limits: Limits) -> Started {
    let made = launcher.create(&bench.id(number), &bench.image, limits, PATIENCE).await;
    made.unwrap_or_else(|error| panic!("{}\n{}", words(&error), bench.log()))
}

async fn death(deaths: &mut Receiver<Died>) -> Died {
    tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap()
}

/// Asks for what the sandbox may be ended in the middle of.
fn begin(control: &OwnedFd, request: &str) {
    rustix::net::send(control, request.as_bytes(), rustix::net::SendFlags::NOSIGNAL).unwrap();
}

#[tokio::test]
async fn limits_hold() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let limits = Limits { memory: 64 << 20, pids: 16, cpu_millis: 500, cpu_weight: 50, io_weight: 200, ..LIMITS };
    let started = create(&bench, &launcher, 1, limits).await;
    assert_eq!(done(&started.control, "memory 16"), "0");
    assert_eq!(done(&started.control, "fork 100"), "15", "with PID 1 that is sixteen");
    let groups = cgroups_named(&bench.id(1));
    let value = |file: &str| groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
    let is = |unified: (&str, &str), legacy: (&str, &str)| {
        let found = value(unified.0).map(|text| text == unified.1);
        assert_eq!(found.or(value(legacy.0).map(|text| text == legacy.1)), Some(true), "{unified:?} or {legacy:?}");
    };
    is(("cpu.max", "50000 100000\n"), ("cpu.cfs_quota_us", "50000\n"));
    is(("cpu.weight", "50\n"), ("cpu.shares", "512\n"));
    is(("memory.swap.max", "0\n"), ("memory.memsw.limit_in_bytes", "67108864\n"));
    if let Some(weight) = value("blkio.bfq.weight") {
        assert_eq!(weight, "200\n");
    }
    if let Some(devices) = value("devices.list") {
        assert!(!devices.contains('b') && !devices.contains('m') && devices.contains("c 1:3 rw"), "{devices}");
    }
}

#[tokio::test]
async fn a_sandbox_out_of_memory_ends_as_a_whole_with_its_files_kept_and_no_other_notices() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let limits = Limits { memory: 64 << 20, ..LIMITS };
    let neighbour = create(&bench, &launcher, 2, LIMITS).await;
    // More than once: the launcher must hear of each, whoever of the processes the kernel chooses.
    for round in 1..=5 {
        let started = create(&bench, &launcher, 1, limits).await;
        assert_eq!(started.info.restored, round > 1);
        done(&started.control, &format!("write /workspace/note{round} kept"));
        done(&started.control, "spawn");
        done(&started.control, "devour");
        let died = death(&mut deaths).await;
        assert_eq!((died.sandbox, died.instance), (bench.id(1), started.info.instance));
        assert!(died.why.starts_with("out of memory: used 6") && died.why.ends_with(" of 64.0 MiB"), "{}", died.why);
        assert_eq!(processes_of(started.info.uid_base), Vec::<i32>::new(), "the ones that used little ended too");
        bench.assert_nothing_left(&bench.id(1));
        // Whoever ends it later is told as well.
        let told = launcher.destroy(&bench.id(1), Files::Keep).await.unwrap();
        assert_eq!(told, Some(died.why));
        assert_eq!(done(&neighbour.control, "ping"), "");
    }
    let again = create(&bench, &launcher, 1, limits).await;
    assert_eq!(done(&again.control, "read /workspace/note5"), "kept");
    assert_eq!(launcher.destroy(&bench.id(1), Files::Remove).await.unwrap(), None, "this one was told to");
    // Removing the files tells it as well.
    let started = create(&bench, &launcher, 1, limits).await;
    done(&started.control, "devour");
    let died = death(&mut deaths).await;
    assert_eq!(launcher.destroy(&bench.id(1), Files::Remove).await.unwrap(), Some(died.why));
}

#[tokio::test]
async fn a_sandbox_over_its_disk_ends_with_its_files_kept_and_may_clean_up() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let limits = Limits { disk: 32 << 20, ..LIMITS };
    let neighbour = create(&bench, &launcher, 2, LIMITS).await;
    let started = create(&bench, &launcher, 1, limits).await;
    done(&started.control, "write /workspace/note kept");
    begin(&started.control, "fill /workspace/large 64");
    let died = death(&mut deaths).await;
    assert_eq!(died.sandbox, bench.id(1));
    assert!(died.why.starts_with("disk: used ") && died.why.ends_with(" MiB of 32.0 MiB"), "{}", died.why);
    // It starts again although it is over, may use a little, and is not ended while it cleans up.
    let again = create(&bench, &launcher, 1, limits).await;
    assert_eq!(done(&again.control, "read /workspace/note"), "kept");
    done(&again.control, "fill /workspace/more 20");
    let none = tokio::time::timeout(Duration::from_secs(4), deaths.recv()).await;
    assert!(none.is_err(), "{none:?}");
    done(&again.control, "remove /workspace/more");
    begin(&again.control, "fill /workspace/more 128");
    let died = death(&mut deaths).await;
    assert!(died.why.starts_with("disk: used "), "{}", died.why);
    assert_eq!(done(&neighbour.control, "ping"), "");
}

#[tokio::test]
async fn a_file_in_no_folder_counts_as_long_as_it_is_open_or_mapped_anywhere() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    for (number, hiding) in (1..).zip(["hide", "hide-mapped", "hide-in-thread", "hide-behind-ended-thread"]) {
        let started = create(&bench, &launcher, number, Limits { disk: 32 << 20, ..LIMITS }).await;
        begin(&started.control, &format!("{hiding} 64"));
        let died = death(&mut deaths).await;
        assert_eq!(died.sandbox, bench.id(number), "{hiding}");
        assert!(died.why.starts_with("disk: used "), "{hiding}: {}", died.why);
    }
}

#[tokio::test]
async fn many_files_and_folders_without_end_are_limits_too() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let mut deaths = launcher.events();
    let many = create(&bench, &launcher, 1, Limits { files: 5000, ..LIMITS }).await;
    begin(&many.control, "files /workspace/many 6000");
    let died = death(&mut deaths).await;
    assert_eq!(died.why, "files: 5001 of 5000");
    let deep = create(&bench, &launcher, 2, LIMITS).await;
    begin(&deep.control, "descend 3000");
    begin(&deep.control, "files /workspace/many 6000");
    let died = death(&mut deaths).await;
    assert_eq!(died.why, "files: folders in each other, more than 2048 deep");
    launcher.destroy(&bench.id(2), Files::Remove).await.unwrap();
    assert!(!bench.files(&bench.id(2)).exists(), "what is deep can be removed");
}

#[tokio::test]
async fn open_files_are_limited_and_cost_the_launcher_none() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = create(&bench, &launcher, 1, LIMITS).await;
    let launchers = || fs::read_dir(format!("/proc/{}/fd", bench.pid())).unwrap().count();
    let before = launchers();
    let held: u64 = done(&started.control, "open /etc/hostname").parse().unwrap();
    assert!((100..65_536).contains(&held), "{held}");
    assert!(ask(&started.control, "read /etc/hostname").starts_with("err"), "it has none left");
    // A sandbox more costs no more than its sockets, whatever the others hold.
    let other = create(&bench, &launcher, 2, LIMITS).await;
    assert_eq!(done(&other.control, "read /etc/hostname"), "from-the-image\n");
    let after = launchers();
    assert!(after <= before + 8, "{before} became {after}");
}
