//! What a host that has ended may have left behind: processes, mounts, control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How deep control groups are looked for: hierarchy, slice, service, host, sandbox.
const DEPTH: usize = 5;

/// Every control group of a host of ours, in every hierarchy.
pub fn control_groups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    collect(Path::new("/sys/fs/cgroup"), DEPTH, &mut found);
    found
}

/// One thing that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is, for people.
    pub what: String,
    /// Its number, where it is a process.
    pub process: Option<u32>,
}

impl Leftover {
    fn thing(what: String) -> Self {
        Self { what, process: None }
    }
}

/// What is there now on account of a host that worked in `directory`: one entry for each thing. Control groups that
/// were there `before` are somebody else's.
pub fn find(directory: &Path, before: &BTreeSet<PathBuf>) -> Vec<Leftover> {
    let mut left = processes(directory);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = directory.to_string_lossy();
    let mounts = mounts.lines().filter(|line| line.contains(&*place));
    left.extend(mounts.map(|line| Leftover::thing(format!("mount {line}"))));
    let groups = control_groups();
    left.extend(groups.difference(before).map(|path| Leftover::thing(format!("control group {}", path.display()))));
    left
}

/// Processes other than this one and its parent that were started for the directory or are in it.
fn processes(directory: &Path) -> Vec<Leftover> {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| !own.contains(number)).filter_map(|number| of_process(number, directory)).collect()
}

fn of_process(number: u32, directory: &Path) -> Option<Leftover> {
    let place = PathBuf::from(format!("/proc/{number}"));
    // Any of these may vanish while it is read: then the process has ended.
    let command = String::from_utf8_lossy(&fs::read(place.join("cmdline")).ok()?).replace('\0', " ");
    let inside =
        ["cwd", "root"].iter().any(|link| fs::read_link(place.join(link)).is_ok_and(|to| to.starts_with(directory)));
    let concerned = inside || command.contains(&*directory.to_string_lossy());
    concerned.then(|| Leftover { what: format!("process {number} ({})", command.trim()), process: Some(number) })
}

fn collect(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains("ostler") {
            found.insert(path.clone());
        }
        collect(&path, depth - 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_in_the_directory_is_found_until_it_ends() {
        let directory = std::env::temp_dir().join(format!("xtask-leftovers-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // `cat` waits for its input and says nothing of the directory in its command line.
        let mut child = Command::new("cat").current_dir(&directory).stdin(Stdio::piped()).spawn().unwrap();
        let expected = Leftover { what: format!("process {} (cat)", child.id()), process: Some(child.id()) };
        let mut found = processes(&directory);
        // Until the child has become `cat` it is a copy of this process.
        while !found.contains(&expected) && child.try_wait().unwrap().is_none() {
            found = processes(&directory);
        }
        assert!(found.contains(&expected), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(processes(&directory), []);
        fs::remove_dir_all(&directory).unwrap();
    }
}
