//! The same program in the same root file system under Debian's runc, with its own idea of a specification and a user
//! namespace: nothing of ours is weaker, but for the exceptions listed here with their reasons.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use ostler_sandbox::defence::{Defence, Weakened};
use serde_json::{Value, json};

use crate::canonical::covers;
use crate::inside::{Inside, PLACE, program};
use crate::support::Bench;

/// Capabilities that `runc spec` does not give, by their bit: what installing packages needs. All are Docker's.
const MORE_CAPABILITIES: [(u32, &str); 6] = [
    (0, "CHOWN: archives and packages give files away"),
    (1, "DAC_OVERRIDE: root writes into the homes of services"),
    (3, "FOWNER: modes and times of files that were given away"),
    (4, "FSETID: setgid bits of packages"),
    (6, "SETGID: apt and services become somebody else"),
    (7, "SETUID: the same"),
];

/// Limits of ours that are higher.
const HIGHER_LIMITS: [(&str, &str); 1] = [("open files", "build tools and servers open more than 1024")];

/// Errors that mean: not for you, or not there.
const REFUSALS: [i64; 6] = [
    libc::EPERM as i64,
    libc::EACCES as i64,
    libc::ENOSYS as i64,
    libc::EAFNOSUPPORT as i64,
    libc::EPROTONOSUPPORT as i64,
    libc::EOPNOTSUPP as i64,
];

/// A bundle whose root file system is owned by the range from `base` on.
struct Bundle {
    folder: tempfile::TempDir,
    id: String,
}

impl Bundle {
    fn make(base: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // runc enters the user namespace before it looks for the root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().join("rootfs");
        for name in ["", "etc", "home", "root", "usr", "proc", "sys", "dev", "tmp", "workspace"] {
            fs::create_dir(root.join(name)).unwrap();
            chown(root.join(name), Some(base), Some(base)).unwrap();
        }
        fs::copy(program(), root.join(PLACE.trim_start_matches('/'))).unwrap();
        runc(folder.path(), &["spec"]);
        let config = folder.path().join("config.json");
        let mut specification: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        specification["process"]["terminal"] = json!(false);
        specification["process"]["cwd"] = json!("/workspace");
        // Ours is there to be changed, so both are writable.
        specification["root"]["readonly"] = json!(false);
        let map = json!([{"containerID": 0, "hostID": base, "size": 65_536}]);
        specification["linux"]["uidMappings"] = map.clone();
        specification["linux"]["gidMappings"] = map;
        specification["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        fs::write(config, specification.to_string()).unwrap();
        Self { folder, id: format!("ostler-posture-{}", std::process::id()) }
    }

    /// Runs the program and reads what it prints.
    fn json(&self, word: &str) -> Value {
        let config = self.folder.path().join("config.json");
        let mut specification: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        specification["process"]["args"] = json!([PLACE, word]);
        fs::write(config, specification.to_string()).unwrap();
        let said = runc(self.folder.path(), &["run", &self.id]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

fn runc(folder: &Path, words: &[&str]) -> String {
    let output = Command::new("runc").arg("--root").arg(folder.join("state")).args(words).current_dir(folder).output();
    let output =
        output.unwrap_or_else(|error| panic!("this test compares with runc, which must be installed: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn set(posture: &Value, name: &str) -> u64 {
    u64::from_str_radix(posture["capabilities"][name].as_str().unwrap(), 16).unwrap()
}

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Points of the mounts over parts of `/proc` and `/sys`: those that hide, and those that only make read-only.
fn covered(posture: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut hidden, mut read_only) = (BTreeSet::new(), BTreeSet::new());
    for mount in posture["mounts"].as_array().unwrap().iter().filter(|mount| covers(mount)) {
        let point = mount["point"].as_str().unwrap().to_owned();
        match mount["type"].as_str().unwrap() {
            "proc" | "sysfs" => read_only.insert(point),
            // Control groups are no cover, and ours has none.
            "cgroup" | "cgroup2" => false,
            _ if point.starts_with("/sys/fs/cgroup") => false,
            _ => hidden.insert(point),
        };
    }
    (hidden, read_only)
}

/// In what a posture is weaker than the other, beyond the exceptions.
fn weaknesses(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let machine = crate::canonical::outside(std::process::id() as i32);
    for (name, namespace) in machine["namespaces"].as_object().unwrap() {
        if theirs["namespaces"][name] != *namespace && ours["namespaces"][name] == *namespace {
            found.push(format!("{name} namespace"));
        }
    }
    let more: u64 = MORE_CAPABILITIES.iter().map(|(bit, _)| 1 << bit).sum();
    for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let beyond = set(ours, name) & !set(theirs, name);
        let allowed = if ["inheritable", "ambient"].contains(&name) { 0 } else { more };
        if beyond & !allowed != 0 {
            found.push(format!("{name} capabilities {beyond:#x}"));
        }
    }
    for name in ["no_new_privileges", "seccomp", "seccomp_filters"] {
        if ours[name].as_i64().unwrap() < theirs[name].as_i64().unwrap() {
            found.push(name.to_owned());
        }
    }
    for name in ["environment", "devices"] {
        found.extend(texts(&ours[name]).difference(&texts(&theirs[name])).map(|text| format!("{name} {text}")));
    }
    found.extend(higher_limits(ours, theirs));
    found.extend(weaker_mounts(ours, theirs));
    found
}

fn higher_limits(ours: &Value, theirs: &Value) -> Vec<String> {
    let number = |limit: &Value| limit.as_str().unwrap().parse().unwrap_or(u64::MAX);
    let limits = ours["limits"].as_object().unwrap();
    let higher = limits.iter().filter(|(name, values)| {
        (0..2).any(|which| number(&values[which]) > number(&theirs["limits"][name.as_str()][which]))
    });
    let unlisted = higher.filter(|(name, _)| !HIGHER_LIMITS.iter().any(|(listed, _)| listed == name));
    unlisted.map(|(name, _)| format!("limit of {name}")).collect()
}

fn weaker_mounts(ours: &Value, theirs: &Value) -> Vec<String> {
    let ((hidden, read_only), (their_hidden, their_read_only)) = (covered(ours), covered(theirs));
    assert!(their_hidden.len() > 3 && their_read_only.len() > 2, "{their_hidden:?} {their_read_only:?}");
    let mut found: Vec<String> = their_hidden.difference(&hidden).map(|path| format!("{path} is shown")).collect();
    let is_writable = |path: &&String| !read_only.contains(*path) && !hidden.contains(*path);
    found.extend(their_read_only.iter().filter(is_writable).map(|path| format!("{path} can be written")));
    let mounts = |posture: &Value| posture["mounts"].as_array().unwrap().clone();
    let protecting = |mount: &Value| -> BTreeSet<String> {
        let options = texts(&mount["options"]);
        ["nosuid", "nodev", "noexec", "ro"]
            .map(str::to_owned)
            .into_iter()
            .filter(|name| options.contains(name))
            .collect()
    };
    for mount in mounts(ours).iter().filter(|mount| !covers(mount)) {
        let point = mount["point"].as_str().unwrap();
        match mounts(theirs).iter().find(|other| other["point"] == *point) {
            None => found.push(format!("{point} is mounted")),
            Some(other) => {
                let missing = protecting(other).difference(&protecting(mount)).cloned().collect::<Vec<_>>();
                found.extend(missing.into_iter().map(|option| format!("{point} is not {option}")));
            }
        }
    }
    found
}

async fn compared(left_out: &[Defence]) -> Vec<String> {
    let bench = Bench::with(|config| {
        config.guest = None;
        config.weakened = Weakened(left_out.to_vec());
    });
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let bundle = Bundle::make(inside.sandbox.uid_base + 65_536);
    weaknesses(&inside.json(&["posture"]).await, &bundle.json("posture"))
}

#[tokio::test]
async fn nothing_is_weaker_than_under_runc() {
    assert_eq!(compared(&[]).await, Vec::<String>::new());
}

/// What the comparison would say.
#[tokio::test]
async fn the_comparison_with_runc_notices_what_is_left_out() {
    for (defence, expected) in [
        (Defence::NoNewPrivileges, "no_new_privileges"),
        (Defence::FewCapabilities, "bounding capabilities"),
        (Defence::NoInheritance, "inheritable capabilities"),
        (Defence::MaskedPaths, "/sys/firmware is shown"),
        (Defence::ReadOnlyPaths, "/proc/sys can be written"),
        (Defence::OwnIpc, "ipc namespace"),
    ] {
        let found = compared(&[defence]).await;
        assert!(found.iter().any(|weakness| weakness.starts_with(expected)), "{defence:?}: {found:?}");
    }
}

#[tokio::test]
async fn every_dangerous_call_is_refused_and_none_that_runc_refuses_is_answered() {
    let bench = Bench::with(|config| config.guest = None);
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let bundle = Bundle::make(inside.sandbox.uid_base + 65_536);
    let (ours, theirs) = (inside.json(&["calls"]).await, bundle.json("calls"));
    let is_refused = |answer: &Value| answer.as_i64().is_some_and(|errno| REFUSALS.contains(&errno));
    let calls = ours.as_object().unwrap();
    assert!(calls.len() > 60, "{calls:?}");
    let answered: Vec<(&String, &Value)> = calls.iter().filter(|(_, answer)| !is_refused(answer)).collect();
    assert_eq!(answered, Vec::new());
    // The table holds what it is for: without a filter the kernel answers some of them.
    let unfiltered = theirs.as_object().unwrap().values().filter(|answer| !is_refused(answer)).count();
    assert!(unfiltered > 20, "runc's default answers {unfiltered}");
}
