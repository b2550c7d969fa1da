//! Files that lie in no folder and take room all the same: removed while a process has them open or mapped.
//!
//! Descriptors are looked for in every process, and in every thread that has a table of its own; mappings are read as text and
//! opened only where the kernel says that the file was removed. Both are bounded in number, and more than that is a finding of
//! its own, so that nobody hides behind a crowd. Where the kernel cannot compare tables (without `CONFIG_KCMP`), threads are
//! taken to share that of their process.
//!
//! Not found is what is only on its way through a socket, and, without root of the machine, what is only mapped: the kernel opens it
//! for nobody else.

use std::collections::HashSet;
use std::fs::{File, read_dir};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::meter::Beyond;

/// Descriptors of all processes of a sandbox together.
pub(super) const MOST_DESCRIPTORS: u64 = 262_144;

/// Mapped regions of all processes of a sandbox together: sixteen times what the kernel allows one process by default.
pub(super) const MOST_MAPPINGS: u64 = 1_048_576;

/// Whether to go on.
type Next = ControlFlow<Option<Beyond>>;

/// Shows `look` a name for each file that may be one, until it has seen enough.
pub(super) fn each(processes: &[Pid], mut look: impl FnMut(&Path) -> ControlFlow<()>) -> Option<Beyond> {
    let mut counted = Counted::default();
    let mut one = |path: &Path| look(path).map_break(|()| None);
    for pid in processes {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        if let ControlFlow::Break(beyond) = counted.process(*pid, &process, &mut one) {
            return beyond;
        }
    }
    None
}

#[derive(Default)]
struct Counted {
    descriptors: u64,
    mappings: u64,
}

impl Counted {
    fn process(&mut self, pid: Pid, folder: &Path, look: &mut impl FnMut(&Path) -> Next) -> Next {
        self.descriptors(folder, look)?;
        self.threads(pid, folder, look)?;
        self.mappings(folder, look)
    }

    /// The descriptors of a process or thread, by its folder in `/proc`.
    fn descriptors(&mut self, of: &Path, look: &mut impl FnMut(&Path) -> Next) -> Next {
        let Ok(list) = read_dir(of.join("fd")) else { return Next::Continue(()) };
        for descriptor in list.flatten() {
            self.descriptors += 1;
            if self.descriptors > MOST_DESCRIPTORS {
                return Next::Break(Some(Beyond::Descriptors));
            }
            look(&descriptor.path())?;
        }
        Next::Continue(())
    }

    /// The descriptors of those threads that share them neither with the first thread nor with the last one that was looked at.
    fn threads(&mut self, pid: Pid, process: &Path, look: &mut impl FnMut(&Path) -> Next) -> Next {
        let Ok(threads) = read_dir(process.join("task")) else { return Next::Continue(()) };
        let mut last = pid;
        for thread in threads.flatten() {
            let number = thread.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let Some(number) = number.filter(|number| *number != pid) else { continue };
            if share_descriptors(pid, number) || share_descriptors(last, number) {
                continue;
            }
            last = number;
            self.descriptors(&thread.path(), look)?;
        }
        Next::Continue(())
    }

    fn mappings(&mut self, process: &Path, look: &mut impl FnMut(&Path) -> Next) -> Next {
        let Some((process, list)) = memory(process) else { return Next::Continue(()) };
        let mut list = BufReader::new(list);
        let mut seen = HashSet::new();
        let mut line = Vec::new();
        // Names are bytes.
        while list.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            self.mappings += 1;
            if self.mappings > MOST_MAPPINGS {
                return Next::Break(Some(Beyond::Mappings));
            }
            if let Some((region, file)) = removed(&line)
                && seen.insert(file)
            {
                look(&process.join("map_files").join(region))?;
            }
            line.clear();
        }
        Next::Continue(())
    }
}

/// What is mapped, with the folder that shows it. All threads share their memory; the first one shows none once it has ended while
/// others go on.
fn memory(process: &Path) -> Option<(PathBuf, File)> {
    let shown = |folder: PathBuf| {
        let is_empty = BufReader::new(File::open(folder.join("maps")).ok()?).fill_buf().ok()?.is_empty();
        // Read anew, because what a thread shows is made while it is read.
        if is_empty { None } else { File::open(folder.join("maps")).ok().map(|list| (folder, list)) }
    };
    // A thread has a folder of its own, which is in no list.
    let threads = || read_dir(process.join("task")).into_iter().flatten().flatten();
    shown(process.to_owned())
        .or_else(|| threads().find_map(|thread| shown(Path::new("/proc").join(thread.file_name()))))
}

/// Of a line of `maps` whose file was removed: the name of its region in `map_files`, and its device and number.
fn removed(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line.strip_suffix(b"\n")?.strip_suffix(b" (deleted)")?);
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (device, number) = (fields.nth(2)?, fields.next()?);
    // The one is padded with zeros, the other is not.
    let short = |address: &str| u64::from_str_radix(address, 16).map(|address| format!("{address:x}")).ok();
    Some((format!("{}-{}", short(start)?, short(end)?), format!("{device} {number}")))
}

/// Whether two threads have one table of descriptors (kcmp(2)).
#[expect(unsafe_code, reason = "rustix has no kcmp")]
fn share_descriptors(one: Pid, other: Pid) -> bool {
    /// From `uapi/linux/kcmp.h`.
    const KCMP_FILES: libc::c_long = 2;
    let raw = |pid: Pid| libc::c_long::from(pid.as_raw_nonzero().get());
    // SAFETY: all arguments are numbers, and nothing is changed.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, raw(one), raw(other), KCMP_FILES, 0, 0) };
    // 1, 2 and 3 are kinds of being different; a thread that is gone has nothing to look at.
    !(1..=3).contains(&compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mapping_of_a_removed_file_is_opened_by_the_kernels_name_for_it() {
        let found = |region: &str, file: &str| Some((region.to_owned(), file.to_owned()));
        let zeros = b"00400000-00452000 r-xp 00000000 00:2a 17 /workspace/a b (deleted)\n".as_slice();
        let bytes = b"7f0000000000-7f0000001000 rw-s 00000000 00:2a 9 /\xff (deleted)\n".as_slice();
        for (line, expected) in [
            (zeros, found("400000-452000", "00:2a 17")),
            (bytes, found("7f0000000000-7f0000001000", "00:2a 9")),
            (b"00400000-00452000 r-xp 00000000 00:2a 17 /workspace/a\n", None),
            (b"7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]\n", None),
            (b"x (deleted)\n", None),
        ] {
            assert_eq!(removed(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }
}
