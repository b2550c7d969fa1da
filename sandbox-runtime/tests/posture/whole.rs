//! The whole posture of each kind of process in a sandbox.

use ostler_wire::guest::{Stdio, Window};
use ostler_wire::launcher::Files;
use serde_json::{Value, json};

use crate::canonical::{canonical, covers, outside};
use crate::inside::Inside;
use crate::support::{Bench, eventually, processes_of, processes_where};

fn bench() -> Bench {
    Bench::with(|config| config.guest = None)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// What each process has of its own, and what looks different from outside. All else is the same for every process.
const OWN: [&str; 5] = ["descriptors", "directory", "environment", "cgroup", "root"];

pub fn without(mut posture: Value, fields: &[&str]) -> Value {
    for field in fields {
        posture.as_object_mut().unwrap().remove(*field);
    }
    posture
}

/// Number on the machine of a process that the sandbox knows by another.
pub fn on_the_machine(base: u32, inside: &str) -> i32 {
    let is_it = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        line.split_whitespace().last() == Some(inside)
    };
    let all = processes_where("status", is_it);
    let found: Vec<i32> = processes_of(base).into_iter().filter(|pid| all.contains(pid)).collect();
    assert_eq!(found.len(), 1, "process {inside} of the sandbox: {found:?}");
    found[0]
}

/// The process, whatever started it and however it is connected, differs from a command in nothing that confines. `pid` is its
/// number in the sandbox.
async fn assert_confined_like_a_command(inside: &Inside, pid: &str) {
    let base = inside.sandbox.uid_base;
    let posture = canonical(outside(on_the_machine(base, pid)), base);
    let command = canonical(inside.json(&["posture"]).await, base);
    assert_eq!(without(posture, &OWN), without(command, &OWN), "process {pid} of the sandbox");
}

#[tokio::test]
async fn the_posture_of_a_command_is_this_and_no_other() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let posture = canonical(inside.json(&["posture"]).await, inside.sandbox.uid_base);
    insta::assert_snapshot!("command", pretty(&posture));
}

#[tokio::test]
async fn the_posture_of_pid_1_is_this_and_no_other() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let mut posture = canonical(outside(inside.sandbox.pid), inside.sandbox.uid_base);
    // One of its workers may be on its way out.
    posture["descriptors"].as_object_mut().unwrap().retain(|_, kind| kind != "pipe");
    // Which hierarchies there are depends on the machine; its groups have a test with the launcher's.
    insta::assert_snapshot!("pid_1", pretty(&without(posture.clone(), &["cgroup"])));
    // PID 1 is confined like every command: the two differ in nothing that confines.
    let command = canonical(inside.json(&["posture"]).await, inside.sandbox.uid_base);
    assert_eq!(without(posture, &OWN), without(command, &OWN));
}

/// Commands do not see what PID 1 has open, nor its program.
#[tokio::test]
async fn pid_1_shows_a_command_nothing_and_cannot_be_traced() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let outcome = inside.run(&["try", "debug", "1"]).await;
    assert_eq!(outcome.status, 1, "{}", outcome.said);
    // What shields PID 1 shields no other: debuggers work.
    let other = inside.run(&["background"]).await.said;
    let outcome = inside.run(&["try", "debug", &other]).await;
    assert_eq!(outcome.status, 0, "{}", outcome.said);
}

#[tokio::test]
async fn what_outlives_its_command_is_confined_like_it() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let left = inside.run(&["background"]).await.said;
    assert_confined_like_a_command(&inside, &left).await;
}

#[tokio::test]
async fn a_program_on_a_terminal_and_one_on_pipes_are_confined_like_a_command() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let base = inside.sandbox.uid_base;
    let command = canonical(inside.json(&["posture"]).await, base);
    for stdio in [Stdio::Terminal(Window { rows: 24, columns: 80 }), Stdio::Piped] {
        let running = inside.start("/workspace", &["wait"], stdio).await.unwrap();
        let pid = on_the_machine(base, &running.pid.unwrap().to_string());
        // Until then it is what the guest was when it forked.
        eventually("it is the program", || {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "inside")
        });
        let posture = canonical(outside(pid), base);
        assert_eq!(posture["terminal"].is_null(), stdio == Stdio::Piped, "{}", posture["terminal"]);
        let [posture, command] =
            [posture, command.clone()].map(|posture| without(without(posture, &OWN), &["terminal"]));
        assert_eq!(posture, command, "{stdio:?}");
    }
}

#[tokio::test]
async fn a_restored_sandbox_and_one_that_was_handed_over_are_confined_like_a_new_one() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let inside = Inside::make(&bench, &launcher, &id).await;
    let first = canonical(inside.json(&["posture"]).await, inside.sandbox.uid_base);
    let running = inside.run(&["background"]).await.said;
    // Another host takes over: what runs then was adopted.
    drop(inside);
    let (second, living) = bench.connect(2).await;
    assert_eq!(living, std::slice::from_ref(&id));
    let adopted = Inside::enter(&second, second.reclaim(&id).await.unwrap()).await;
    assert_eq!(canonical(adopted.json(&["posture"]).await, adopted.sandbox.uid_base), first);
    assert_confined_like_a_command(&adopted, &running).await;
    second.destroy(&id, Files::Keep).await.unwrap();
    drop(adopted);
    let restored = Inside::make(&bench, &second, &id).await;
    assert!(restored.sandbox.restored);
    assert_eq!(canonical(restored.json(&["posture"]).await, restored.sandbox.uid_base), first);
}

#[tokio::test]
async fn no_address_is_reached_from_inside() {
    let bench = bench();
    let machine = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = machine.local_addr().unwrap().port();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let address = format!("127.0.0.1:{port}");
    let reached = inside.json(&["reach", &address, "[::1]:22"]).await;
    assert_eq!(reached, json!({address: "ConnectionRefused", "[::1]:22": "ConnectionRefused"}));
}

/// Docker's lists and what ours adds; of each what this machine's kernel has.
#[tokio::test]
async fn what_tells_about_the_machine_or_steers_it_is_covered() {
    let bench = bench();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let posture = inside.json(&["posture"]).await;
    let covered = posture["mounts"].as_array().unwrap().iter().filter(|mount| covers(mount));
    let covered: Vec<String> = covered
        .map(|mount| {
            let point = mount["point"].as_str().unwrap();
            let read_only = mount["options"].as_array().unwrap().contains(&json!("ro"));
            let kind = match (mount["type"].as_str().unwrap(), mount["root"].as_str().unwrap()) {
                ("proc", root) if format!("/proc{root}") == point && read_only => "read-only",
                ("tmpfs", "/dev/null") => "nothing",
                ("tmpfs", "/") if read_only => "empty",
                other => panic!("{point}: {other:?}"),
            };
            format!("{point} {kind}")
        })
        .collect();
    let files = [
        "/proc/cmdline",
        "/proc/interrupts",
        "/proc/kallsyms",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/schedstat",
        "/proc/softirqs",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/kernel/notes",
        "/sys/kernel/vmcoreinfo",
    ];
    let folders = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/scsi",
        "/sys/devices/virtual/dmi",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/fs/btrfs",
        "/sys/fs/ext4",
        "/sys/fs/xfs",
        "/sys/hypervisor",
    ];
    let steering = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let expected = [(&files[..], "nothing"), (&folders, "empty"), (&steering, "read-only")];
    let expected = expected.into_iter().flat_map(|(paths, kind)| {
        let there = paths.iter().filter(|path| std::path::Path::new(path).exists());
        there.map(move |path| format!("{path} {kind}"))
    });
    let mut expected: Vec<String> = expected.collect();
    expected.sort_unstable();
    let heat = |line: &String| line.contains("/thermal_throttle ");
    assert_eq!(covered.into_iter().filter(|line| !heat(line)).collect::<Vec<_>>(), expected);
}
