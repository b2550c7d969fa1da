//! The control groups of sandboxes, in every hierarchy that the machine has.
//!
//! ```text
//! unified   /sys/fs/cgroup/ostler-<tag>/<id>                      limits (set by libcontainer) and kill
//! hybrid    /sys/fs/cgroup/unified/ostler-<tag>/<id>              kill
//!           /sys/fs/cgroup/{memory,pids,cpu,…}/ostler-<tag>/<id>  limits (set by libcontainer)
//! legacy    the second line only: killing goes by process number
//! ```
//!
//! The tag belongs to one launcher (its lock guards it), so that whatever is found under it after a crash may
//! be ended. This module owns making, killing and collecting the directories; limits are written by
//! libcontainer, whose own clean-up leaves directories behind and waits in steps of 100 ms.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ostler_wire::{Failure, FailureKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::step::{Step, failure};

/// Controllers that a unified leaf needs.
const CONTROLLERS: [&str; 4] = ["+memory", "+pids", "+cpu", "+io"];

/// The hierarchies of this machine and the directory of one launcher in them.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    parent: String,
    unified: Option<PathBuf>,
    legacy: Vec<PathBuf>,
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
    pub(crate) fn detect(tag: &str) -> Result<Self, Failure> {
        let table =
            fs::read_to_string("/proc/self/mountinfo").step("read mounts", || "/proc/self/mountinfo".to_owned())?;
        let found = Self::from_mountinfo(tag, &table);
        if found.unified.is_none() && found.legacy.is_empty() {
            return Err(failure(FailureKind::System, "find cgroups", "no cgroup hierarchy is mounted"));
        }
        Ok(found)
    }

    fn from_mountinfo(tag: &str, table: &str) -> Self {
        let mut found = Self { parent: format!("ostler-{tag}"), unified: None, legacy: Vec::new() };
        for line in table.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(path) = mount.split(' ').nth(4).map(unescape) else { continue };
            match filesystem.split(' ').next() {
                Some("cgroup2") if found.unified.is_none() => found.unified = Some(path),
                Some("cgroup") => found.legacy.push(path),
                _ => {}
            }
        }
        found
    }

    /// The absolute cgroup path of a sandbox, relative to every hierarchy's root, for the OCI specification.
    pub(crate) fn oci_path(&self, sandbox: &str) -> String {
        format!("/{}/{sandbox}", self.parent)
    }

    /// Whether memory limits can include swap.
    pub(crate) fn limits_swap(&self) -> bool {
        let memory = self.legacy.iter().find(|path| path.ends_with("memory"));
        memory.is_none_or(|path| path.join("memory.memsw.limit_in_bytes").exists())
    }

    /// Moves the calling process into a new leaf for `sandbox`, so that it and all it starts can be killed at once.
    pub(crate) fn join(&self, sandbox: &str) -> Result<(), Failure> {
        let Some(root) = &self.unified else { return Ok(()) };
        let parent = root.join(&self.parent);
        let leaf = parent.join(sandbox);
        for directory in [&parent, &leaf] {
            match fs::create_dir(directory) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made.step("make cgroup", || directory.display().to_string())?,
            }
        }
        if self.legacy.is_empty() {
            // A controller that is missing shows as a limit that cannot be set, which libcontainer reports.
            for controller in CONTROLLERS {
                let _ = write(&root.join("cgroup.subtree_control"), controller);
                let _ = write(&parent.join("cgroup.subtree_control"), controller);
            }
            let _ = write(&leaf.join("memory.oom.group"), "1");
        }
        write(&leaf.join("cgroup.procs"), "0").step("join cgroup", || leaf.display().to_string())
    }

    /// Sends SIGKILL to every process of a sandbox. One that does not exist is no error.
    pub(crate) fn kill(&self, sandbox: &str) -> Result<(), Failure> {
        if let Some(root) = &self.unified {
            let file = root.join(&self.parent).join(sandbox).join("cgroup.kill");
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
        self.unified.iter().chain(&self.legacy)
    }

    fn processes(&self, sandbox: &str) -> Vec<Pid> {
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
31 30 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 none rw
32 30 0:27 / /sys/fs/cgroup/mem\\040ory rw - cgroup memory rw,memory
33 30 0:28 / /sys/fs/cgroup/pids rw shared:9 - cgroup pids rw,pids
";

    #[test]
    fn a_hybrid_tree_has_one_unified_root_and_its_controllers() {
        let found = Cgroups::from_mountinfo("t", HYBRID);
        assert_eq!(found.unified, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(found.legacy, [PathBuf::from("/sys/fs/cgroup/mem ory"), PathBuf::from("/sys/fs/cgroup/pids")]);
        assert_eq!(found.oci_path("x"), "/ostler-t/x");
    }

    #[test]
    fn a_leaf_in_a_unified_tree_gets_its_controllers_and_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let table = format!("31 30 0:26 / {} rw - cgroup2 none rw\n", root.path().display());
        let cgroups = Cgroups::from_mountinfo("t", &table);
        let leaf = root.path().join("ostler-t/one");
        fs::create_dir_all(&leaf).unwrap();
        for file in ["cgroup.subtree_control", "ostler-t/cgroup.subtree_control"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        for file in ["cgroup.procs", "memory.oom.group", "cgroup.kill"] {
            fs::write(leaf.join(file), "").unwrap();
        }
        cgroups.join("one").unwrap();
        cgroups.kill("one").unwrap();
        let read = |file: &str| fs::read_to_string(leaf.join(file)).unwrap();
        assert_eq!(
            (read("cgroup.procs"), read("memory.oom.group"), read("cgroup.kill")),
            ("0".into(), "1".into(), "1".into())
        );
        // The fake file keeps the last write only.
        assert!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap().starts_with("+io"));
        assert_eq!(cgroups.leftovers(), ["one"]);
        assert_eq!(cgroups.remove("absent").unwrap(), Removal::Gone);
    }
}
