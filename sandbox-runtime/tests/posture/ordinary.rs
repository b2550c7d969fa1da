//! The same sandbox made by an ordinary user: what a process in there is differs in its ids, and in nothing that confines.

use serde_json::{Value, json};

use crate::canonical::{canonical, outside, without_numbers};
use crate::inside::Inside;
use crate::support::{Bench, SUBORDINATE};
use crate::whole::{on_the_machine, without};

/// Ids, and control groups: the user has none.
const OTHERWISE: [&str; 3] = ["uid_map", "gid_map", "cgroup"];

/// First uid on the machine of what a sandbox of the bench has.
fn base(bench: &Bench, inside: &Inside) -> u32 {
    // In the launcher's namespace 0 is the user, and the subordinate ids follow.
    bench.config.uid_first + inside.sandbox.uid_base - 1
}

/// Root makes the nodes of devices in a file system of its own, an ordinary user has the machine's.
fn without_device_system(mount: &str) -> String {
    let name = mount.strip_prefix("/dev/").and_then(|rest| rest.split(' ').next());
    if !name.is_some_and(|name| ["null", "zero", "full", "random", "urandom", "tty"].contains(&name)) {
        return mount.to_owned();
    }
    let (kind, _) = mount.split_once(" (").unwrap();
    kind.replace(" devtmpfs ", " tmpfs ")
}

#[tokio::test]
async fn a_command_in_an_ordinary_users_sandbox_is_confined_like_one_in_roots() {
    let bench = Bench::ordinary();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let base = base(&bench, &inside);
    let posture = inside.json(&["posture"]).await;
    for map in ["uid_map", "gid_map"] {
        // As seen from inside: in numbers of the launcher's namespace, where 0 would be the user.
        let first = inside.sandbox.uid_base;
        assert_eq!(posture[map], json!([[0, first, 4095], [65_534, first + 4095, 1]]));
    }
    let rooted = Bench::with(|config| config.guest = None);
    let (rooted_launcher, _) = rooted.connect(1).await;
    let other = Inside::make(&rooted, &rooted_launcher, &rooted.id(1)).await;
    let expected = canonical(other.json(&["posture"]).await, other.sandbox.uid_base);
    let [mine, expected] = [without_numbers(posture, base), expected].map(|mut posture| {
        for mount in posture["mounts"].as_array_mut().unwrap() {
            *mount = json!(without_device_system(mount.as_str().unwrap()));
        }
        without(posture, &OTHERWISE)
    });
    assert_eq!(mine, expected);
}

#[tokio::test]
async fn pid_1_and_what_runs_on_have_none_of_the_users_own_rights() {
    let bench = Bench::ordinary();
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let base = base(&bench, &inside);
    let left = inside.run(&["background"]).await.said;
    for pid in [inside.sandbox.pid, on_the_machine(base, &left)] {
        let posture = outside(pid);
        for ids in ["uid", "gid"] {
            assert_eq!(posture[ids], json!([base, base, base, base]), "{pid}");
        }
        for map in ["uid_map", "gid_map"] {
            let first: Vec<u64> = posture[map].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap()).collect();
            let subordinate = u64::from(bench.config.uid_first)..u64::from(bench.config.uid_first + SUBORDINATE);
            assert!(first.iter().all(|id| subordinate.contains(id)), "{map}: {first:?}");
        }
        assert_eq!((&posture["no_new_privileges"], &posture["seccomp"]), (&json!(1), &json!(2)));
        let machine = outside(std::process::id() as i32);
        for name in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
            assert_ne!(posture["namespaces"][name], machine["namespaces"][name], "{name}");
            assert_ne!(posture["namespaces"][name], Value::Null, "{name}");
        }
    }
}
