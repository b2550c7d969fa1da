//! The files of sandboxes that are out of use: moved out of the way, and removed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ostler_wire::Failure;
use rustix::io::Errno;

use crate::process;
use crate::removal::remove;
use crate::step::Step;

/// Moves a tree into another directory of the store, under a name that nothing there has.
pub(super) fn set_aside(place: &Path, into: &Path, name: &str) -> Result<PathBuf, Failure> {
    let shown = || format!("{} to {}", place.display(), into.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(into).step("make directory", shown)?;
    let free = (0_u32..).map(|number| into.join(format!("{name}.{number}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| into.join(name));
    fs::rename(place, &target).step("move files", shown)?;
    Ok(target)
}

/// Removes a tree in a child process, because it may be large. Symbolic links are not followed. The exit status
/// is the errno of a refusal.
pub(super) fn remove_in_child(tree: &Path) -> Result<rustix::process::Pid, Failure> {
    process::fork(|| {
        // Holding none of the launcher's sockets open.
        if process::become_child(c"ostler-remover").and_then(|()| process::keep_only(Vec::new())).is_err() {
            return libc::EIO;
        }
        // Not the launcher, this is what may go when memory is short.
        let _ = fs::write("/proc/self/oom_score_adj", "500");
        match remove(tree) {
            Ok(()) | Err(Errno::NOENT) => 0,
            Err(error) => error.raw_os_error(),
        }
    })
    .step("fork", || format!("a remover of {}", tree.display()))
}
