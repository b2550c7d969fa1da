//! What the launcher and its workers are, seen from outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ostler_wire::launcher::Files;
use rustix::fs::{SealFlags, fcntl_get_seals};

use crate::support::{Bench, done, processes_where};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SYS_ADMIN, MKNOD
const CAPABILITIES: &str = "00000000082000db";

fn status(pid: i32) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Some(fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

#[tokio::test]
async fn the_launcher_has_the_rights_that_it_needs_and_can_have_no_others() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
    let status = status(bench.pid() as i32).unwrap();
    let field = |name: &str| status[name].as_str();
    assert_eq!((field("CapEff"), field("CapPrm"), field("CapBnd")), (CAPABILITIES, CAPABILITIES, CAPABILITIES));
    let none = "0000000000000000";
    assert_eq!((field("CapInh"), field("CapAmb")), (none, none));
    assert_eq!((field("NoNewPrivs"), field("Seccomp"), field("Threads")), ("1", "2", "1"));
    assert_eq!(field("Groups"), "");
}

#[tokio::test]
async fn the_launcher_and_its_workers_run_from_a_sealed_copy_of_the_program() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let is_sealed = |pid: i32| {
        let program = format!("/proc/{pid}/exe");
        // A worker may be gone by now.
        let (Ok(link), Ok(file)) = (fs::read_link(&program), fs::File::open(&program)) else { return None };
        let seals = fcntl_get_seals(file.as_fd()).unwrap_or(SealFlags::empty());
        let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        Some(link.to_string_lossy().starts_with("/memfd:ostler-launcher") && seals.contains(all))
    };
    assert_eq!(is_sealed(bench.pid() as i32), Some(true));
    let opened = fs::File::options().write(true).open(format!("/proc/{}/exe", bench.pid()));
    assert!(opened.is_err(), "nobody can write to it, root included");

    let stop = Arc::new(AtomicBool::new(false));
    let (parent, stopped) = (bench.pid().to_string(), stop.clone());
    let watcher = std::thread::spawn(move || {
        let is_worker = |status: &str| {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            field("PPid:") == Some(&parent) && field("Name:") == Some("ostler-worker")
        };
        let mut seen = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            seen.extend(processes_where("status", is_worker).into_iter().filter_map(is_sealed));
        }
        seen
    });
    for number in 0..10 {
        bench.create(&launcher, &bench.id(number)).await;
        launcher.destroy(&bench.id(number), Files::Remove).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let seen = watcher.join().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|sealed| *sealed), "{seen:?}");
}
