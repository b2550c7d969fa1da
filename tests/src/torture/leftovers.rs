//! What of a runtime is still there: processes, mounts, control groups, descriptors, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::runtime::{DEADLINE, Runtime};

/// What a runtime holds beside its launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Processes with a uid of its ranges, or that have its folder in their command line, without the launcher.
    pub processes: Vec<String>,
    /// Mounts of anybody that name its folder.
    pub mounts: BTreeSet<String>,
    /// Control groups of its sandboxes; `None` where none was noted by which they are found.
    pub groups: Option<Vec<PathBuf>>,
    /// Files of sandboxes in the store.
    pub sandboxes: Vec<String>,
    /// Names in the store's other folders.
    pub store: BTreeSet<PathBuf>,
}

impl Leftovers {
    /// Looks. Control groups are found by what [`note_group`] wrote.
    ///
    /// # Errors
    /// When `/proc` or the store cannot be read.
    pub fn of(runtime: &Runtime) -> Result<Self> {
        let folder = runtime.folder().to_string_lossy().into_owned();
        let launcher = runtime.launcher_pid();
        let uids = runtime.uid_first()..runtime.uid_first() + Runtime::UID_RANGES * 65_536;
        let mut found = Self {
            processes: Vec::new(),
            mounts: BTreeSet::new(),
            groups: groups(runtime)?,
            sandboxes: names(&runtime.store().join("sandboxes"))?,
            store: BTreeSet::new(),
        };
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<u32>() else { continue };
            if pid == std::process::id() || Some(pid) == launcher {
                continue;
            }
            // A process may end while it is looked at.
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let status = read("status");
            let command = read("cmdline").replace('\0', " ");
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
            let uid = field("Uid:").split_whitespace().next().and_then(|uid| uid.parse().ok());
            if uid.is_some_and(|uid| uids.contains(&uid)) || command.contains(&folder) {
                found.processes.push(format!("{pid} {} {command}", field("State:")));
            }
            found.mounts.extend(read("mountinfo").lines().filter(|line| line.contains(&folder)).map(str::to_owned));
        }
        for folder in names(&runtime.store())?.into_iter().filter(|name| name != "sandboxes") {
            let path = runtime.store().join(folder);
            let inside = if path.is_dir() { names(&path)? } else { Vec::new() };
            found.store.extend(inside.into_iter().map(|name| path.join(name)));
            found.store.insert(path);
        }
        Ok(found)
    }

    /// Fails where more is there than `before`, after sandboxes were made.
    ///
    /// # Errors
    /// Names what is left, or what could not be looked for.
    pub fn ensure_nothing_since(&self, before: &Self) -> Result<()> {
        ensure!(self.processes.is_empty(), "processes are left: {:#?}", self.processes);
        ensure!(self.mounts.is_subset(&before.mounts), "mounts are left: {:#?}", self.mounts);
        let groups = self.groups.as_ref().context("no sandbox's control group was noted")?;
        ensure!(groups.is_empty(), "control groups are left: {groups:#?}");
        ensure!(self.sandboxes.is_empty(), "files of sandboxes are left: {:?}", self.sandboxes);
        let (new, gone) = (self.store.difference(&before.store), before.store.difference(&self.store));
        let changed: Vec<_> = new.chain(gone).collect();
        ensure!(changed.is_empty(), "the store is not as it was: {changed:#?}");
        Ok(())
    }
}

/// Descriptors that a process has open.
///
/// # Errors
/// When it has ended.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("descriptors of {pid}"))?.count())
}

/// Waits until a process has as many descriptors as it had; what it closes, it closes after its answer.
///
/// # Errors
/// When it goes on having more.
pub async fn ensure_descriptors(pid: u32, before: usize) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    loop {
        let open = descriptors(pid)?;
        if open <= before {
            return Ok(());
        }
        ensure!(Instant::now() < until, "process {pid} had {before} descriptors before and has {open}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every control group below the parent that a launcher of this folder makes, in any hierarchy; `None` where that is not
/// known.
fn groups(runtime: &Runtime) -> Result<Option<Vec<PathBuf>>> {
    let Ok(noted) = fs::read_to_string(runtime.folder().join("group")) else { return Ok(None) };
    let mut found = Vec::new();
    let mut front = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = front.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if path.file_name() == noted.trim() {
                found.extend(names(&path.path())?.into_iter().map(|name| path.path().join(name)));
            } else {
                front.push(path.path());
            }
        }
    }
    found.retain(|path| path.is_dir());
    Ok(Some(found))
}

/// Takes note of the control group that a sandbox's first process is in, by which the others are found.
///
/// # Errors
/// When it has none of its own.
pub fn note_group(runtime: &Runtime, pid: i32, sandbox: &str) -> Result<()> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("groups of a sandbox")?;
    let parent = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let path = Path::new(path);
        (path.file_name()? == sandbox).then(|| path.parent()?.file_name()?.to_str().map(str::to_owned))?
    });
    fs::write(runtime.folder().join("group"), parent.context("a sandbox has a control group of its own")?)?;
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
