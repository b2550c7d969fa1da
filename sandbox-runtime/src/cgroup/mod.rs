//! The control groups of sandboxes, in every hierarchy that the machine has.
//!
//! ```text
//! unified   /sys/fs/cgroup/ostler-<tag>/<id>                           limits and kill
//! hybrid    /sys/fs/cgroup/unified/ostler-<tag>/<id>                   kill
//!           /sys/fs/cgroup/{memory,pids,cpu,…}/ostler-<tag>/<id>       limits
//! legacy    the second line only: killing goes by process number
//! ```
//!
//! An ordinary user's launcher works below the groups that it was started in, where those were delegated to the user (with
//! systemd: `Delegate=yes`); where not, there are none, nothing is limited, and a sandbox ends with its PID 1.
//!
//! The tag belongs to one launcher (its lock guards it), so that whatever is found under it after a crash may
//! be ended. This module owns making, killing and collecting the directories, [`limits`] what is written into them,
//! [`memory`] what is read of them, [`gaps`] what a machine cannot limit.
//!
//! libcontainer has no part in it: it moves processes by `cgroup.procs`, which waits for a grace period of RCU (10 ms,
//! measured on kernel 6.18), and its clean-up leaves directories behind. Here nobody is ever moved: a worker is
//! cloned into the unified leaf and puts itself, as its own only thread, into the others, which the kernel does at once
//! (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c). Everything that it starts inherits both.

mod delegation;
mod gaps;
mod limits;
mod memory;
pub(crate) mod trial;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ostler_wire::{Failure, FailureKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::standing::Standing;
use crate::step::{Step, failure};

pub use gaps::Gap;
pub(crate) use limits::Leaf;
pub(crate) use memory::OutOfMemory;

/// What limits are set with; a machine must have each of them in one of its hierarchies.
pub(crate) const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// The version 1 controller that says which devices may be opened. The unified tree has none: no node can be made in a
/// sandbox, and every mount is `nodev`.
const DEVICES: &str = "devices";

/// The controllers of version 1 and 2 that share out disks. A machine may have neither.
const BLKIO: &str = "blkio";
const IO: &str = "io";

/// The hierarchies of this machine and the directory of one launcher in them.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    parent: String,
    unified: Option<Hierarchy>,
    legacy: Vec<Hierarchy>,
}

/// A mounted hierarchy and what it controls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    controllers: Vec<String>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|found| found == controller)
    }

    /// Lets the leaves below `parent`, a directory of this unified hierarchy, have the controllers that set limits.
    fn enable_for_leaves_of(&self, parent: &Path) -> Result<(), Failure> {
        for controller in CONTROLLERS.into_iter().filter(|controller| self.has(controller)) {
            for directory in [&self.root, parent] {
                let file = directory.join("cgroup.subtree_control");
                let shown = || format!("{controller} in {}", file.display());
                write(&file, &format!("+{controller}")).step("enable controller", shown)?;
            }
        }
        if self.has(IO) {
            // Weights of disks are had where they can be had, see `gaps`.
            let _ = write(&self.root.join("cgroup.subtree_control"), &format!("+{IO}"));
            let _ = write(&parent.join("cgroup.subtree_control"), &format!("+{IO}"));
        }
        Ok(())
    }

    /// Whether sandboxes are put into it.
    fn is_used(&self) -> bool {
        CONTROLLERS.iter().chain([&DEVICES, &BLKIO]).any(|controller| self.has(controller))
    }
}

/// Whether a directory could be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing of it is left.
    Gone,
    /// Processes are still leaving it.
    Busy,
}

impl Cgroups {
    /// Finds the mounted hierarchies. `tag` tells launchers on one machine apart.
    pub(crate) fn detect(tag: &str, standing: Standing) -> Result<Self, Failure> {
        let table =
            fs::read_to_string("/proc/self/mountinfo").step("read mounts", || "/proc/self/mountinfo".to_owned())?;
        let found = Self::from_mountinfo(tag, &table);
        if standing == Standing::Namespace {
            return Ok(delegation::only_delegated(found));
        }
        match CONTROLLERS.into_iter().find(|controller| !found.has(controller)) {
            None => Ok(found),
            Some(missing) => {
                let words = format!(
                    "no hierarchy has the controller `{missing}`, without which a sandbox has no limits; mount one, or \
                     enable it on the kernel's command line"
                );
                Err(failure(FailureKind::System, "find cgroups", words))
            }
        }
    }

    fn from_mountinfo(tag: &str, table: &str) -> Self {
        let mut found = Self { parent: format!("ostler-{tag}"), unified: None, legacy: Vec::new() };
        for line in table.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(root) = mount.split(' ').nth(4).map(unescape) else { continue };
            let mut fields = filesystem.split(' ');
            match fields.next() {
                Some("cgroup2") if found.unified.is_none() => {
                    // A controller that a hierarchy of version 1 has is not in this list.
                    let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                    let controllers = list.split_whitespace().map(str::to_owned).collect();
                    found.unified = Some(Hierarchy { root, controllers });
                }
                Some("cgroup") => {
                    let options = fields.next_back().unwrap_or_default();
                    let controllers = options.split(',').map(str::to_owned).collect();
                    found.legacy.push(Hierarchy { root, controllers });
                }
                _ => {}
            }
        }
        found
    }

    /// Whether there is a group to end all of a sandbox by.
    pub(crate) fn can_end(&self) -> bool {
        self.unified.is_some() || self.legacy.iter().any(Hierarchy::is_used)
    }

    /// Whether some hierarchy has the controller.
    fn has(&self, controller: &str) -> bool {
        self.unified.iter().chain(&self.legacy).any(|hierarchy| hierarchy.has(controller))
    }

    /// The path of a sandbox's groups, relative to every hierarchy's root, for the OCI specification.
    pub(crate) fn oci_path(&self, sandbox: &str) -> String {
        format!("/{}/{sandbox}", self.parent)
    }

    /// Makes the unified leaf of a sandbox, for its worker to be cloned into; `None` where there is no unified tree.
    pub(crate) fn make_unified(&self, sandbox: &str) -> Result<Option<File>, Failure> {
        let Some(unified) = &self.unified else { return Ok(None) };
        let parent = unified.root.join(&self.parent);
        if make_directory(&parent)? == Made::New
            && let Err(failed) = unified.enable_for_leaves_of(&parent)
        {
            // The next sandbox tries again.
            let _ = fs::remove_dir(&parent);
            return Err(failed);
        }
        let leaf = parent.join(sandbox);
        make_directory(&leaf)?;
        File::open(&leaf).map(Some).step("open cgroup", || leaf.display().to_string())
    }

    /// Puts the calling process, which has one thread and was cloned into the unified leaf, into the other groups of its
    /// sandbox. The limits are to be set with what is returned, also when the process has lost sight of the hierarchies.
    pub(crate) fn enter(&self, sandbox: &str) -> Result<Leaf, Failure> {
        let mut leaf = Leaf::default();
        if let Some(unified) = &self.unified {
            let place = unified.root.join(&self.parent).join(sandbox);
            leaf.unified = Some(limits::Group::open(&place, unified.controllers.clone())?);
        }
        for legacy in self.legacy.iter().filter(|legacy| legacy.is_used()) {
            let parent = legacy.root.join(&self.parent);
            let place = parent.join(sandbox);
            make_directory(&parent)?;
            make_directory(&place)?;
            // `tasks`, not `cgroup.procs`, and `0`, not a number: see above.
            write(&place.join("tasks"), "0").step("join cgroup", || place.display().to_string())?;
            leaf.legacy.push(limits::Group::open(&place, legacy.controllers.clone())?);
        }
        Ok(leaf)
    }

    /// Sends SIGKILL to every process of a sandbox. One that does not exist is no error.
    pub(crate) fn kill(&self, sandbox: &str) -> Result<(), Failure> {
        if let Some(unified) = &self.unified {
            let file = unified.root.join(&self.parent).join(sandbox).join("cgroup.kill");
            match write(&file, "1") {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done.step("kill cgroup", || file.display().to_string()),
            }
        }
        for pid in self.processes(sandbox) {
            // A process that has ended meanwhile is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    /// Whether a process of the sandbox lives.
    pub(crate) fn is_populated(&self, sandbox: &str) -> bool {
        !self.processes(sandbox).is_empty()
    }

    /// Takes away the sandbox's directories in every hierarchy.
    pub(crate) fn remove(&self, sandbox: &str) -> Result<Removal, Failure> {
        for root in self.roots() {
            if remove_directory(&root.join(&self.parent).join(sandbox))? == Removal::Busy {
                return Ok(Removal::Busy);
            }
        }
        Ok(Removal::Gone)
    }

    /// Takes away this launcher's own directory in every hierarchy, where it is empty. Nothing may be being made.
    pub(crate) fn remove_parents(&self) {
        for root in self.roots() {
            let _ = fs::remove_dir(root.join(&self.parent));
        }
    }

    /// Names of the sandboxes that have a directory in any hierarchy.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .roots()
            .filter_map(|root| fs::read_dir(root.join(&self.parent)).ok())
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.unified.iter().chain(&self.legacy).map(|hierarchy| &hierarchy.root)
    }

    /// The processes of a sandbox.
    pub(crate) fn processes(&self, sandbox: &str) -> Vec<Pid> {
        let mut pids: Vec<i32> = self
            .roots()
            .filter_map(|root| fs::read_to_string(root.join(&self.parent).join(sandbox).join("cgroup.procs")).ok())
            .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().filter_map(Pid::from_raw).collect()
    }
}

#[derive(PartialEq, Eq)]
enum Made {
    New,
    Found,
}

fn make_directory(directory: &Path) -> Result<Made, Failure> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(Made::New),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Made::Found),
        Err(error) => Err(error).step("make cgroup", || directory.display().to_string()),
    }
}

fn remove_directory(directory: &Path) -> Result<Removal, Failure> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(Removal::Gone),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removal::Gone),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(Removal::Busy),
        Err(error) => Err(error).step("remove cgroup", || directory.display().to_string()),
    }
}

/// Writes to an existing control file.
fn write(file: &Path, value: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:26 / /no/such/cgroup/unified rw,nosuid - cgroup2 none rw
32 30 0:27 / /sys/fs/cgroup/mem\\040ory rw - cgroup memory rw,memory
33 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";

    #[test]
    fn a_hybrid_tree_has_one_unified_root_and_its_controllers() {
        let found = Cgroups::from_mountinfo("t", HYBRID);
        let unified = found.unified.as_ref().map(|unified| unified.root.as_path());
        assert_eq!(unified, Some(Path::new("/no/such/cgroup/unified")));
        let used: Vec<_> = found.legacy.iter().filter(|legacy| legacy.is_used()).map(|legacy| &legacy.root).collect();
        assert_eq!(used, [Path::new("/sys/fs/cgroup/mem ory"), Path::new("/sys/fs/cgroup/cpu,cpuacct")]);
        assert_eq!((found.has("memory"), found.has("cpu"), found.has("pids")), (true, true, false));
        assert_eq!(found.oci_path("x"), "/ostler-t/x");
    }

    /// A tree of plain files; a fake file keeps the last write only.
    fn unified() -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        let table = format!("31 30 0:26 / {} rw - cgroup2 none rw\n", root.path().display());
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
        (root, Cgroups::from_mountinfo("t", &table))
    }

    #[test]
    fn a_leaf_in_a_unified_tree_gets_its_limits_and_is_found_again() {
        let (root, cgroups) = unified();
        let leaf = root.path().join("ostler-t/one");
        fs::create_dir_all(&leaf).unwrap();
        let files = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max", "cpu.weight"];
        for file in files.into_iter().chain(["io.weight", "cgroup.kill"]) {
            fs::write(leaf.join(file), "").unwrap();
        }
        assert!(cgroups.make_unified("one").unwrap().is_some());
        let limits = ostler_wire::launcher::Limits {
            memory: 1 << 30,
            pids: 100,
            cpu_millis: 1500,
            cpu_weight: 50,
            io_weight: 200,
            disk: 1 << 30,
            files: 1000,
        };
        let groups = cgroups.enter("one").unwrap();
        groups.limit(limits).unwrap();
        groups.limit_cpu(limits).unwrap();
        cgroups.kill("one").unwrap();
        let read = |file: &str| fs::read_to_string(leaf.join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.swap.max")), ("1073741824".into(), "0".into()));
        assert_eq!((read("pids.max"), read("cpu.max")), ("100".into(), "150000 100000".into()));
        assert_eq!((read("cpu.weight"), read("io.weight")), ("50".into(), "200".into()));
        assert_eq!(read("memory.oom.group"), "1", "all of it ends, not one process");
        assert_eq!(read("cgroup.kill"), "1");
        assert_eq!(cgroups.leftovers(), ["one"]);
        assert_eq!(cgroups.remove("absent").unwrap(), Removal::Gone);
    }

    #[test]
    fn a_new_parent_gets_the_controllers_for_its_leaves() {
        let (root, cgroups) = unified();
        // The kernel makes the files of a new directory; here there are none.
        let refused = cgroups.make_unified("one").unwrap_err();
        assert!(refused.detail.starts_with("memory in "), "{refused}");
        assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+memory");
        assert!(!root.path().join("ostler-t").exists(), "the next sandbox tries again");
    }
}
