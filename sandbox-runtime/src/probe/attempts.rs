//! What is tried. Each function runs in a process of its own, which ends after it.
#![expect(unsafe_code, reason = "unshare of namespaces and adjtimex have no safe wrapper")]

use std::os::fd::OwnedFd;
use std::path::Path;

use ostler_wire::{Failure, FailureKind};
use rustix::thread::UnshareFlags;

use crate::ids::Range;
use crate::launcher::{UID_FIRST, seal};
use crate::standing::{self, Standing};
use crate::step::{Step, failure};
use crate::{guest_image, pair, terminal, worker};

/// Every kind of namespace that a sandbox has.
const NAMESPACES: [(&str, UnshareFlags); 7] = [
    ("a mount namespace", UnshareFlags::NEWNS),
    ("a process namespace", UnshareFlags::NEWPID),
    ("an IPC namespace", UnshareFlags::NEWIPC),
    ("a host name namespace", UnshareFlags::NEWUTS),
    ("a control group namespace", UnshareFlags::NEWCGROUP),
    ("a network namespace", UnshareFlags::NEWNET),
    ("a user namespace", UnshareFlags::NEWUSER),
];

pub(super) fn namespaces() -> Result<(), Failure> {
    for (name, kind) in NAMESPACES {
        // SAFETY: this process has one thread and ends after this.
        unsafe { rustix::thread::unshare_unsafe(kind) }.step("unshare", || name.to_owned())?;
    }
    Ok(())
}

/// Ids that a sandbox could have.
fn first_ids() -> Result<Range, Failure> {
    match Standing::of_this_process() {
        Standing::Machine => Ok(Range::whole(UID_FIRST)),
        Standing::Namespace => {
            let first = standing::own_ids()?.blocks.first().copied();
            let none = || failure(FailureKind::System, "share out ids", "there are none");
            first.map(|block| Range { base: block.first, count: block.size }).ok_or_else(none)
        }
    }
}

pub(super) fn door() -> Result<(), Failure> {
    pair::make(first_ids()?).map(drop)
}

pub(super) fn overlay(scratch: &Path) -> Result<(), Failure> {
    worker::trial::mount_root(scratch, first_ids()?)
}

pub(super) fn seccomp() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).step("forbid new privileges", || "of the probe".to_owned())?;
    terminal::forbid_typing().map_err(|error| failure(FailureKind::System, "load a filter", error.to_string()))
}

/// The guest as the launcher keeps it.
pub(super) fn guest() -> Result<OwnedFd, Failure> {
    seal(guest_image::bytes())
}

/// Whether the kernel was told by somebody that its clock is right (NTP).
///
/// # Errors
/// When the kernel refuses to tell.
pub fn clock_is_synchronised() -> std::io::Result<bool> {
    // SAFETY: zero is a valid value of every field, and no mode asks for nothing to be changed.
    let result = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut state)
    };
    match result {
        -1 => Err(std::io::Error::last_os_error()),
        state => Ok(state != libc::TIME_ERROR),
    }
}
