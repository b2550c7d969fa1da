//! The last line before libcontainer: what no specification may hold, whoever made it.
//!
//! [`super::spec`] makes every specification of constants, so this finds nothing as long as that stays so. Kinds of mounts, names
//! of sysctls, devices and namespaces are lists of what is allowed: what nobody thought of is refused.

use std::path::Path;

use oci_spec::runtime::{Capabilities, Capability, LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use ostler_wire::guest::CERTIFICATES;
use ostler_wire::{Failure, FailureKind};

use super::staging;
use crate::step::failure;

/// File systems that are made for the sandbox alone and lead nowhere else.
const KINDS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

/// What may be mounted without `nodev`: it holds the few devices that there are.
const WITH_DEVICES: [&str; 2] = ["/dev", "/dev/pts"];

/// Options that undo what the others promise, or let a mount be seen outside.
const OPTIONS: [&str; 10] = ["bind", "rbind", "dev", "suid", "shared", "rshared", "slave", "rslave", "idmap", "ridmap"];

/// Namespaces that a sandbox joins, see [`crate::pair`].
const JOINED: [LinuxNamespaceType; 2] = [LinuxNamespaceType::User, LinuxNamespaceType::Network];

/// Sysctls that belong to a namespace of the sandbox; the kernel refuses others only for some.
const SYSCTLS: [&str; 4] = ["net.", "fs.mqueue.", "kernel.shm", "kernel.msg"];

/// Capabilities over the sandbox's own namespaces that reach too much of the kernel all the same.
const CAPABILITIES: [Capability; 14] = [
    Capability::SysAdmin,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysPtrace,
    Capability::SysBoot,
    Capability::SysTime,
    Capability::Mknod,
    Capability::Bpf,
    Capability::Perfmon,
    Capability::DacReadSearch,
    Capability::CheckpointRestore,
    Capability::Syslog,
];

/// Refuses a specification with a reason.
pub(super) fn check(specification: &[u8]) -> Result<(), Failure> {
    let found = serde_json::from_slice::<Spec>(specification);
    let found = found.map_err(|error| refused(format!("it cannot be read: {error}")))?;
    mounts(&found)?;
    system(&found)?;
    process(&found)
}

fn refused(why: impl Into<String>) -> Failure {
    failure(FailureKind::Invalid, "check specification", why)
}

fn mounts(found: &Spec) -> Result<(), Failure> {
    for mount in found.mounts().iter().flatten() {
        if is_certificates(mount) {
            continue;
        }
        let place = mount.destination().display();
        let refuse = |why: String| Err(refused(format!("the mount at {place} {why}")));
        let kind = mount.typ().as_deref().unwrap_or("none");
        if !KINDS.contains(&kind) {
            return refuse(format!("is of the kind `{kind}`; possible are {}", KINDS.join(", ")));
        }
        if let Some(source) = mount.source().as_ref().filter(|source| source.is_absolute()) {
            return refuse(format!("leads to {}", source.display()));
        }
        if let Some(option) = options(mount).find(|option| OPTIONS.contains(option)) {
            return refuse(format!("has the option `{option}`"));
        }
        let may_hold_devices = WITH_DEVICES.iter().any(|path| mount.destination() == Path::new(path));
        let wanted = [("nosuid", true), ("nodev", !may_hold_devices), ("ro", kind == "sysfs")];
        if let Some((option, _)) =
            wanted.iter().find(|(option, wanted)| *wanted && options(mount).all(|has| has != *option))
        {
            return refuse(format!("lacks the option `{option}`"));
        }
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return refuse("maps ids".to_owned());
        }
    }
    Ok(())
}

/// The one file that is bound: what the operator trusts, copied into the worker's own tmpfs.
fn is_certificates(mount: &Mount) -> bool {
    let [place, source] = [CERTIFICATES, staging::CERTIFICATES].map(Path::new);
    mount.destination() == place
        && mount.source().as_deref() == Some(source)
        && options(mount).eq(["bind", "ro", "nosuid", "noexec", "nodev"])
        && mount.uid_mappings().is_none()
        && mount.gid_mappings().is_none()
}

fn options(mount: &Mount) -> impl Iterator<Item = &str> {
    mount.options().iter().flatten().map(String::as_str)
}

fn system(found: &Spec) -> Result<(), Failure> {
    if found.hooks().is_some() {
        return Err(refused("it has hooks, which run outside of the sandbox"));
    }
    let Some(linux) = found.linux() else { return Err(refused("it has no part for Linux")) };
    for (name, value) in linux.sysctl().iter().flatten() {
        let known = SYSCTLS.iter().any(|known| name.starts_with(known)) || name == "kernel.sem";
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._- ".contains(&byte));
        if !known || !plain(name) || !plain(value) || name.contains("..") {
            return Err(refused(format!("the sysctl {name:?} = {value:?} is none of the sandbox's own")));
        }
    }
    if let Some(device) = linux.devices().iter().flatten().next() {
        return Err(refused(format!("it makes the device {}", device.path().display())));
    }
    let allowed = linux.resources().iter().filter_map(|resources| resources.devices().as_ref()).flatten();
    if allowed.clone().any(|rule| rule.allow()) {
        return Err(refused("it allows devices"));
    }
    if linux.rootfs_propagation().as_deref().is_some_and(|propagation| propagation != "private") {
        return Err(refused("mounts of its root would be seen outside"));
    }
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let missing = [
        LinuxNamespaceType::User,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .find(|wanted| namespaces.iter().all(|namespace| namespace.typ() != *wanted));
    if let Some(missing) = missing {
        return Err(refused(format!("it has no {missing} namespace of its own")));
    }
    // Two were made before and are joined by descriptor; the others are made.
    let is_own = |namespace: &&LinuxNamespace| match namespace.path() {
        None => !JOINED.contains(&namespace.typ()),
        Some(path) => JOINED.contains(&namespace.typ()) && is_descriptor(path),
    };
    match namespaces.iter().find(|namespace| !is_own(namespace)) {
        Some(foreign) => Err(refused(format!("its {} namespace is none that was made for it", foreign.typ()))),
        None => Ok(()),
    }
}

/// Whether a path is that of one of this process's descriptors, and not of anything beyond it.
fn is_descriptor(path: &Path) -> bool {
    let number = path.to_str().and_then(|path| path.strip_prefix("/proc/self/fd/"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn process(found: &Spec) -> Result<(), Failure> {
    let Some(process) = found.process() else { return Err(refused("it has no process")) };
    if process.no_new_privileges() != Some(true) {
        return Err(refused("its processes could get new privileges"));
    }
    let Some(capabilities) = process.capabilities() else { return Err(refused("it does not say which capabilities")) };
    let none = |set: &Option<Capabilities>| set.as_ref().is_none_or(|set| set.is_empty());
    if !none(capabilities.inheritable()) || !none(capabilities.ambient()) {
        return Err(refused("its processes could hand on capabilities"));
    }
    let sets = [capabilities.bounding(), capabilities.effective(), capabilities.permitted()];
    let held = sets.into_iter().flatten().flatten().find(|held| CAPABILITIES.contains(held));
    match held {
        Some(held) => Err(refused(format!("its processes would have {held}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use ostler_wire::launcher::Limits;
    use serde_json::{Value, json};

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::store::Store;
    use crate::worker::record::Record;
    use crate::worker::{Job, spec};

    /// What a worker would hand to libcontainer.
    fn ours(image: &str, memory: u64) -> Value {
        let place = tempfile::tempdir().unwrap();
        let limits =
            Limits { memory, pids: 10, cpu_millis: 10, cpu_weight: 1, io_weight: 1, disk: 1 << 30, files: 1000 };
        let job = Job {
            record: Record::new(
                "01jd3kq4v5w6x7y8z9a0b1c2d3".to_owned(),
                image.to_owned(),
                crate::ids::Range::whole(0x7000_0000),
            ),
            repository: None,
            limits,
            store: Store::create(place.path()).unwrap(),
            cgroups: Cgroups::detect("t", crate::standing::Standing::Machine).unwrap(),
            mount_point: place.path().to_owned(),
            weakened: crate::defence::Weakened::default(),
            certificates: Some(place.path().to_owned()),
        };
        let descriptor = std::fs::File::open("/dev/null").unwrap();
        spec::specification(&job, descriptor.as_fd(), descriptor.as_fd())
    }

    fn checked(specification: &Value) -> Result<(), String> {
        check(&serde_json::to_vec(specification).unwrap()).map_err(|refused| refused.detail)
    }

    #[test]
    fn what_a_sandbox_gets_holds_nothing_forbidden_whatever_is_asked_for() {
        let specification = ours("sha256:00", 1 << 30);
        assert_eq!(checked(&specification), Ok(()));
        let descriptors = |mut specification: Value| {
            specification["linux"]["namespaces"].take();
            specification
        };
        assert_eq!(descriptors(ours("another", 1)), descriptors(specification), "no request changes it");
    }

    #[test]
    fn each_forbidden_thing_is_refused_with_its_reason() {
        let mount = |kind: &str, source: &str, options: Value| json!({"destination": "/x", "type": kind, "source": source, "options": options});
        let safe = json!(["nosuid", "nodev"]);
        let cases = [
            ("/mounts/-", mount("bind", "/etc", safe.clone()), "the mount at /x is of the kind `bind`"),
            ("/mounts/-", mount("overlay", "x", safe.clone()), "is of the kind `overlay`"),
            ("/mounts/-", mount("ext4", "/dev/sda", safe.clone()), "is of the kind `ext4`"),
            ("/mounts/-", mount("cgroup", "cgroup", safe.clone()), "is of the kind `cgroup`"),
            ("/mounts/-", mount("tmpfs", "/etc", safe), "the mount at /x leads to /etc"),
            (
                "/mounts/-",
                mount("none", "/certificates", json!(["bind", "ro", "nosuid", "noexec", "nodev"])),
                "is of the kind `none`",
            ),
            ("/mounts/-", mount("tmpfs", "x", json!(["rbind", "nosuid", "nodev"])), "has the option `rbind`"),
            ("/mounts/-", mount("tmpfs", "x", json!(["nosuid", "nodev", "shared"])), "has the option `shared`"),
            ("/mounts/-", mount("tmpfs", "x", json!(["nodev"])), "lacks the option `nosuid`"),
            ("/mounts/-", mount("tmpfs", "x", json!(["nosuid"])), "lacks the option `nodev`"),
            ("/mounts/-", mount("sysfs", "x", json!(["nosuid", "nodev"])), "lacks the option `ro`"),
            ("/linux/sysctl", json!({"kernel.core_pattern": "x"}), "the sysctl \"kernel.core_pattern\""),
            (
                "/linux/sysctl",
                json!({"kernel.shm_rmid_forced": "1+kernel.core_pattern=x"}),
                "is none of the sandbox's own",
            ),
            ("/linux/sysctl", json!({"net.x/../../kernel.y": "1"}), "is none of the sandbox's own"),
            ("/linux/sysctl", json!({"vm.overcommit_memory": "1"}), "is none of the sandbox's own"),
            (
                "/linux/devices",
                json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]),
                "it makes the device /dev/sda",
            ),
            ("/linux/resources", json!({"devices": [{"allow": true, "access": "rwm"}]}), "it allows devices"),
            ("/linux/rootfsPropagation", json!("shared"), "mounts of its root would be seen outside"),
            ("/linux/namespaces", json!([{"type": "user"}]), "it has no net namespace of its own"),
            (
                "/linux/namespaces/-",
                json!({"type": "pid", "path": "/proc/1/ns/pid"}),
                "its pid namespace is none that was made for it",
            ),
            (
                "/linux/namespaces/-",
                json!({"type": "network", "path": "/proc/1/ns/net"}),
                "its net namespace is none that was made for it",
            ),
            (
                "/linux/namespaces/-",
                json!({"type": "network", "path": "/proc/self/fd/../../1/ns/net"}),
                "its net namespace is none that was made for it",
            ),
            ("/linux/namespaces/-", json!({"type": "user"}), "its user namespace is none that was made for it"),
            ("/hooks", json!({"poststart": [{"path": "/bin/sh"}]}), "it has hooks"),
            ("/process/noNewPrivileges", json!(false), "its processes could get new privileges"),
            ("/process/capabilities/ambient", json!(["CAP_KILL"]), "its processes could hand on capabilities"),
            ("/process/capabilities/inheritable", json!(["CAP_KILL"]), "its processes could hand on capabilities"),
            ("/process/capabilities/bounding", json!(["CAP_SYS_ADMIN"]), "its processes would have"),
            ("/process/capabilities/effective", json!(["CAP_NET_RAW"]), "its processes would have"),
        ];
        for (place, value, reason) in cases {
            let mut specification = ours("sha256:00", 1 << 30);
            match place.strip_suffix("/-") {
                Some(list) => specification.pointer_mut(list).unwrap().as_array_mut().unwrap().push(value.clone()),
                None => {
                    let (parent, name) = place.rsplit_once('/').unwrap();
                    specification.pointer_mut(parent).unwrap()[name] = value.clone();
                }
            }
            let refused = checked(&specification).expect_err(&format!("{place} {value} must be refused"));
            assert!(refused.contains(reason), "{place} {value}: {refused}");
        }
        assert!(check(b"{").unwrap_err().detail.starts_with("it cannot be read"));
    }
}
