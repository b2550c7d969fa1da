//! The steps of a worker that a machine may refuse, on nothing: for whoever wants to know before there is a sandbox.
//!
//! Each must run in a forked child of its own and ends with it; what it mounts is gone then. The files that it makes lie in
//! the folder that it is given and are removed by the caller.

use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::workload::Executor;
use oci_spec::runtime::Spec;
use ostler_wire::{Failure, FailureKind};

use super::executor::Guest;
use super::record::Record;
use super::{make_files, overlay, staging};
use crate::defence::Weakened;
use crate::ids::Range;
use crate::step::{Step, failure};

/// Mounts a root file system as a sandbox gets it, over a lower of one empty folder, and writes into it. `scratch` is an
/// empty folder on the file system in question.
pub(crate) fn mount_root(scratch: &Path, ids: Range) -> Result<(), Failure> {
    let [lower, files, mount_point] = ["lower", "files", "staging"].map(|name| scratch.join(name));
    for folder in [&lower, &mount_point] {
        std::fs::create_dir(folder).step("make directory", || folder.display().to_string())?;
    }
    make_files(&files, &Record::new("trial".to_owned(), String::new(), ids))?;
    let pair = crate::pair::make(ids)?;
    let _staging = staging::enter(&mount_point)?;
    overlay::mount(&[lower], &files, super::shown_as(&pair), &Weakened::default())?;
    overlay::check_tree(ids)
}

/// Becomes the guest. Returns only where that is refused.
pub(crate) fn execute(guest: &OwnedFd) -> Failure {
    match Guest::new(guest, None).exec(&Spec::default()) {
        Err(error) => failure(FailureKind::System, "execute the guest from memory", super::chain(&error)),
        Ok(()) => failure(FailureKind::System, "execute the guest from memory", "it came back"),
    }
}
