//! Finding and signalling every process that descends from another, by walking `/proc`.
//!
//! A process group is not enough: a child that calls `setsid` leaves it. Descent is: each call runs below a supervisor
//! that is a subreaper, so what is orphaned there stays below it. One walk can miss what is forked during it; the
//! callers walk again until nothing is left.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process};

/// The process table, seen through a descriptor of `/proc` that is opened once.
pub(crate) struct Processes {
    proc: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    pid: Pid,
    parent: i32,
    /// Ended and not yet waited for.
    dead: bool,
}

impl Processes {
    /// Opens `/proc`.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { proc: openat(CWD, "/proc", flags, Mode::empty())? })
    }

    /// Sends `signal` to everything that descends from `root` (not to `root` itself) and says how many processes were
    /// alive at that moment.
    pub(crate) fn signal_descendants(&self, root: Pid, signal: Signal) -> Result<usize, Errno> {
        self.signal_descendants_but(root, signal, |_| false)
    }

    /// [`Self::signal_descendants`], leaving out each process for which `spared` holds and all that descends from it.
    pub(crate) fn signal_descendants_but(
        &self,
        root: Pid,
        signal: Signal,
        spared: impl Fn(Pid) -> bool,
    ) -> Result<usize, Errno> {
        let found = descendants(&self.rows()?, root, spared);
        for pid in &found {
            // A process that ended meanwhile needs no signal.
            let _ = kill_process(*pid, signal);
        }
        Ok(found.len())
    }

    /// Whether `child` is at this moment a child of `parent`.
    pub(crate) fn is_child(&self, child: Pid, parent: Pid) -> bool {
        self.row(child).is_some_and(|row| row.parent == parent.as_raw_pid())
    }

    fn rows(&self) -> Result<Vec<Row>, Errno> {
        let own = getpid();
        let mut rows = Vec::new();
        let mut directory = Dir::read_from(&self.proc)?;
        while let Some(entry) = directory.read() {
            let entry = entry?;
            let number =
                entry.file_name().to_str().ok().and_then(|name| name.parse().ok()).filter(|number| *number > 0);
            let Some(pid) = number.and_then(Pid::from_raw).filter(|pid| *pid != own) else { continue };
            rows.extend(self.row(pid));
        }
        Ok(rows)
    }

    fn row(&self, pid: Pid) -> Option<Row> {
        let path = format!("{}/stat", pid.as_raw_pid());
        let file = openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut buffer = [0u8; 512];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer[..])).ok()?;
        parse(pid, &buffer[..count])
    }
}

/// Reads `pid (name) state parent …`. The name may hold anything, so the last parenthesis counts.
fn parse(pid: Pid, stat: &[u8]) -> Option<Row> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 20 of all. A process whose first thread has ended is a zombie with others that run on.
    let threads: u32 = fields.nth(15).and_then(|field| field.parse().ok()).unwrap_or(1);
    let dead = state == "X" || state == "Z" && threads <= 1;
    Some(Row { pid, parent, dead })
}

fn descendants(rows: &[Row], root: Pid, spared: impl Fn(Pid) -> bool) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<Row>> = HashMap::new();
    for row in rows {
        children.entry(row.parent).or_default().push(*row);
    }
    let mut found = Vec::new();
    let mut open = vec![root.as_raw_pid()];
    while let Some(parent) = open.pop() {
        // Removing makes the walk end even where a recycled number closes a circle.
        for row in children.remove(&parent).unwrap_or_default() {
            if spared(row.pid) {
                continue;
            }
            open.push(row.pid.as_raw_pid());
            if !row.dead {
                found.push(row.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn row(number: i32, parent: i32, dead: bool) -> Row {
        Row { pid: pid(number), parent, dead }
    }

    #[test]
    fn a_name_full_of_parentheses_does_not_hide_the_parent() {
        assert_eq!(parse(pid(7), b"7 (a) R 1) (b) S 42 7 7 0"), Some(row(7, 42, false)));
        assert_eq!(parse(pid(7), b"7 (x) Z 3 7"), Some(row(7, 3, true)));
        let with_threads = |threads: u32| format!("7 (x) Z 3 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 {threads} 0 99");
        assert_eq!(parse(pid(7), with_threads(1).as_bytes()), Some(row(7, 3, true)));
        assert_eq!(parse(pid(7), with_threads(2).as_bytes()), Some(row(7, 3, false)), "another thread runs on");
        for broken in [&b""[..], b"7 (x", b"7 (x)", b"7 (x) S", b"7 (x) S y"] {
            assert_eq!(parse(pid(7), broken), None);
        }
    }

    #[test]
    fn descent_goes_through_dead_parents_and_stops_at_the_spared() {
        let rows =
            [row(2, 1, false), row(3, 2, true), row(4, 3, false), row(5, 1, false), row(6, 5, false), row(9, 8, false)];
        let mut all = descendants(&rows, pid(1), |_| false);
        all.sort_by_key(|pid| pid.as_raw_pid());
        assert_eq!(all, [pid(2), pid(4), pid(5), pid(6)]);
        let mut some = descendants(&rows, pid(1), |each| each == pid(5));
        some.sort_by_key(|pid| pid.as_raw_pid());
        assert_eq!(some, [pid(2), pid(4)]);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let rows = [row(2, 3, false), row(3, 2, false)];
        assert_eq!(descendants(&rows, pid(2), |_| false), [pid(3), pid(2)]);
    }

    #[test]
    fn a_living_child_is_found_as_one() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let processes = Processes::open().unwrap();
        let number = pid(i32::try_from(child.id()).unwrap());
        assert!(processes.is_child(number, getpid()));
        assert!(!processes.is_child(number, number));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!processes.is_child(number, getpid()));
    }
}
