//! Is there a place for the data?

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::context::{Looker, existing};
use super::finding::{Check, Finding};
use crate::app::{USER, closed_to_others};

const GIB: u64 = 1 << 30;
/// Less is too little to go on with.
const LEAST: u64 = GIB;
/// Less is soon too little: an image takes one, a session's files some.
const LITTLE: u64 = 10 * GIB;
/// Percent that should be free.
const LITTLE_PERCENT: u64 = 5;

/// What the file system under a path says.
#[derive(Clone, Copy)]
struct Room {
    free: u64,
    total: u64,
    free_inodes: u64,
    inodes: u64,
    read_only: bool,
}

pub(super) fn examine(data: &Path, looker: Looker) -> Vec<Check> {
    let place = existing(data);
    let closed = closed_to_others(place).map(|closed| closed.map(Path::to_owned));
    let path = match &closed {
        _ if looker == Looker::Another => {
            Finding::ok(format!("{}; a host that this user starts runs as this user", data.display()))
        }
        Ok(closed) => path(data, closed.as_deref()),
        Err(error) => Finding::skipped(format!("{} cannot be looked at: {error}", place.display())),
    };
    let mut checks = vec![path.of("disk.path")];
    let room = statvfs(place).map(|found| Room {
        free: found.f_bavail * found.f_frsize,
        total: found.f_blocks * found.f_frsize,
        free_inodes: found.f_favail,
        inodes: found.f_files,
        read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    });
    match room {
        Ok(room) => {
            let kind = kind(place).unwrap_or_default();
            checks.push(file_system(&kind, room.read_only).of("disk.file_system"));
            checks.push(space(room).of("disk.space"));
            checks.push(inodes(room).of("disk.inodes"));
        }
        Err(error) => {
            let skipped = Finding::skipped(format!("{} cannot be looked at: {error}", place.display()));
            checks.extend(["disk.file_system", "disk.space", "disk.inodes"].map(|id| skipped.clone().of(id)));
        }
    }
    checks
}

fn path(data: &Path, closed: Option<&Path>) -> Finding {
    let data = data.display();
    match closed {
        None => Finding::ok(format!("`{USER}` can reach {data}")),
        Some(closed) => {
            let closed = closed.display();
            Finding::failed(
                format!("`{USER}` cannot reach {data}: {closed} is closed to it"),
                format!("chmod o+x {closed}, or choose another `--data`"),
            )
        }
    }
}

/// The kind of file system that a path lies on, from the list of mounts.
fn kind(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    kind_in(&table, &device)
}

fn kind_in(table: &str, device: &str) -> Option<String> {
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

fn file_system(kind: &str, read_only: bool) -> Finding {
    let elsewhere = "put the data folder on ext4, xfs or btrfs (`--data`, or `data` in the section [host])";
    match kind {
        _ if read_only => Finding::failed(format!("{kind}, mounted read-only"), elsewhere),
        "ext4" | "xfs" | "btrfs" | "f2fs" | "bcachefs" => Finding::ok(kind),
        "tmpfs" | "ramfs" => {
            Finding::warning(format!("{kind}: everything is lost when the machine restarts"), elsewhere)
        }
        "" => Finding::skipped("it is in no list of mounts"),
        "overlay" | "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "vfat" | "exfat" | "ecryptfs" => {
            Finding::failed(format!("{kind}: the files of a sandbox cannot lie on it"), elsewhere)
        }
        fuse if fuse.starts_with("fuse") => {
            Finding::failed(format!("{fuse}: the files of a sandbox cannot lie on it"), elsewhere)
        }
        other => Finding::ok(format!("{other}; whether it is good enough is what overlay and id map tell")),
    }
}

fn percent(free: u64, total: u64) -> u64 {
    u64::try_from(u128::from(free) * 100 / u128::from(total.max(1))).unwrap_or(100)
}

fn space(room: Room) -> Finding {
    let free = match room.free {
        few if few < GIB => format!("{} MiB free", few >> 20),
        many => format!("{} GiB free ({} %)", many / GIB, percent(many, room.total)),
    };
    let fix = "free some, or put the data folder on a larger disk (`--data`)";
    match room.free {
        few if few < LEAST => Finding::failed(free, fix),
        few if few < LITTLE || percent(few, room.total) < LITTLE_PERCENT => Finding::warning(free, fix),
        _ => Finding::ok(free),
    }
}

fn inodes(room: Room) -> Finding {
    let fix = "remove small files, or put the data folder on a file system with more inodes (`--data`)";
    let free = format!("{} free", room.free_inodes);
    match room.inodes {
        0 => Finding::ok("this file system makes them as they are needed"),
        all => match percent(room.free_inodes, all) {
            0 => Finding::failed(free, fix),
            1..LITTLE_PERCENT => Finding::warning(free, fix),
            _ => Finding::ok(free),
        },
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let data = Path::new("/home/person/data");
    let mut all: Vec<Check> =
        [None, Some(Path::new("/home/person"))].map(|closed| path(data, closed).of("disk.path")).into();
    for (kind, read_only) in [
        ("ext4", false),
        ("ext4", true),
        ("tmpfs", false),
        ("overlay", false),
        ("fuse.sshfs", false),
        ("zfs", false),
        ("", false),
    ] {
        all.push(file_system(kind, read_only).of("disk.file_system"));
    }
    for (free, free_inodes, inodes) in
        [(200 * GIB, 900, 1000), (9 * GIB, 40, 1000), (20 * GIB, 0, 0), (300 << 20, 5, 1000)]
    {
        let room = Room { free, total: 1000 * GIB, free_inodes, inodes, read_only: false };
        all.push(space(room).of("disk.space"));
        all.push(self::inodes(room).of("disk.inodes"));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_system_is_found_by_its_device() {
        let table = "30 24 0:25 / /tmp rw - tmpfs tmpfs rw\n31 30 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n";
        assert_eq!(super::kind_in(table, "8:1").as_deref(), Some("ext4"));
        assert_eq!(super::kind_in(table, "8:2"), None);
    }
}
