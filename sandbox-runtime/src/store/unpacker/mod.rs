//! The process in which archives are decompressed and unpacked: whatever is in one, it reaches nothing else of the machine.
//!
//! ```text
//! import (root)              unpacker (freshly executed, root)              pid 1 of namespaces of its own
//!   Command ───────────────►  namespaces, target with mapped ids, own root
//!                             becomes uid 0 of the user namespace ── fork ─►  gives up what it does not need
//!                             waits                                          reads the archive, fills the target
//!   ◄──────────────────────────────────────────────────────────── Report ──┘
//!   ◄─────────── NotBegun, Ended: where there is none ──┘
//! ```
//!
//! Standard input is the archive, standard output the socket for the one report. Only the process at the right reads the
//! archive, and what it says is a claim. This module owns the steps of both processes; [`room`] knows how they are
//! confined, [`outside`] is the side of the import.

mod outside;
mod report;
mod room;
mod trial;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use ostler_wire::{Failure, FailureKind, socket};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};

use super::unpack::{check_headers, unpack};
use crate::defence::Weakened;
use crate::launcher::LauncherError;
use crate::process;
use crate::step::{Step, failure};

pub use outside::{Bounds, Unpacker};
pub(super) use report::{Done, Problem, UnpackStep};
pub use trial::Trial;

use report::Report;
use room::Room;

/// Name of the process that reads the archive.
pub const NAME: &str = "ostler-unpack";

/// What is to be done with the archive, and within which bounds. Handed over as JSON in an argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    task: Task,
    /// Folder over which the process may mount, in a mount namespace of its own.
    place: PathBuf,
    /// Uid and gid on the machine of the namespace's root.
    uid_base: u32,
    /// Bytes that may be written.
    bytes: u64,
    /// Names that may be made.
    entries: u64,
    /// Processor time that may be taken.
    seconds: u64,
    /// For tests, see [`crate::defence`].
    weakened: Weakened,
    /// For tests.
    trial: Option<Trial>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Task {
    /// Decompress gzip into this empty file.
    Decompress(PathBuf),
    /// Unpack into this empty folder.
    Unpack(PathBuf),
}

/// Does what a plan says, as [`Unpacker`] hands it over. Must be called in a freshly executed process without threads, and
/// last in it.
///
/// # Errors
/// When the process has threads or the plan cannot be read. Everything else is said in the report.
pub fn run(plan: &str) -> Result<(), LauncherError> {
    let plan: Plan = serde_json::from_str(plan).map_err(LauncherError::Configuration)?;
    match process::is_single_threaded() {
        Ok(true) => {}
        _ => return Err(LauncherError::Threads),
    }
    if !plan.weakened.is_possible(cfg!(debug_assertions)) || !Trial::is_possible(plan.trial, cfg!(debug_assertions)) {
        return Err(LauncherError::Weakened);
    }
    let descriptors = take_descriptors(&plan).map_err(LauncherError::Step)?;
    let told = match begin(&plan, &descriptors) {
        Ok(Some(how)) => tell(descriptors.report.as_fd(), &Report::Ended { how }),
        Ok(None) => Ok(()),
        Err(failed) => tell(descriptors.report.as_fd(), &Report::NotBegun(failed)),
    };
    told.map_err(LauncherError::Step)
}

/// What both processes have open.
struct Descriptors {
    report: OwnedFd,
    archive: OwnedFd,
    /// The file to decompress into.
    output: Option<OwnedFd>,
}

/// Keeps what is needed, closes everything else, and sees to it that the end of the import is the end of this.
fn take_descriptors(plan: &Plan) -> Result<Descriptors, Failure> {
    let shown = || "standard input and output".to_owned();
    let archive = io::stdin().as_fd().try_clone_to_owned().step("keep", shown)?;
    let report = io::stdout().as_fd().try_clone_to_owned().step("keep", shown)?;
    let mut kept = vec![report, archive];
    if let Task::Decompress(path) = &plan.task {
        let output = File::options().write(true).open(path).step("open", || path.display().to_string())?;
        kept.push(output.into());
    }
    let kept = process::become_child(c"ostler-import").and_then(|()| process::keep_only(kept));
    let mut kept = kept.step("keep", shown)?.into_iter();
    let missing = || failure(FailureKind::System, "keep", shown());
    let report = kept.next().ok_or_else(missing)?;
    let archive = kept.next().ok_or_else(missing)?;
    stay_only_with(report.as_fd())?;
    // A terminal's Ctrl-C ends the import, and that this; what reads the archive has no terminal to type into.
    let _ = rustix::process::setsid();
    Ok(Descriptors { report, archive, output: kept.next() })
}

/// Fails where nobody waits for the report any more. From before this call on, the end of the parent is the end of this process:
/// so nothing goes on alone.
fn stay_only_with(report: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut watched = [PollFd::from_borrowed_fd(report, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut watched, Some(&now)).step("poll", || "the import".to_owned())?;
    if watched[0].revents().contains(PollFlags::HUP) {
        return Err(failure(FailureKind::System, "poll", "the import is gone"));
    }
    Ok(())
}

/// The confined process, from its beginning to its end. Returns how it ended where that was not by itself.
fn begin(plan: &Plan, descriptors: &Descriptors) -> Result<Option<String>, Failure> {
    // It may go first when memory is short.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let room = Room::enter(plan)?;
    let child =
        process::fork(|| work(plan, &room, descriptors)).step("fork", || "what reads the archive".to_owned())?;
    wait_for(child).step("wait", || "for what reads the archive".to_owned())
}

fn wait_for(child: Pid) -> Result<Option<String>, rustix::io::Errno> {
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => {
                let by_signal = status.terminating_signal().map(|signal| format!("signal {signal}"));
                let by_status = || status.exit_status().filter(|status| *status != 0);
                return Ok(by_signal.or_else(|| by_status().map(|status| format!("exit status {status}"))));
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// What runs in the confined process. Returns its exit status.
fn work(plan: &Plan, room: &Room, descriptors: &Descriptors) -> i32 {
    let report = descriptors.report.as_fd();
    let confined = process::become_child(c"ostler-unpack")
        .step("become", || NAME.to_owned())
        .and_then(|()| stay_only_with(report))
        .and_then(|()| room.confine(plan));
    let said = match confined {
        Err(failed) => Report::NotBegun(failed),
        Ok(()) => match trial::of(plan.trial, report) {
            Some(done) => done,
            None => perform(plan, descriptors).map_or_else(Report::Failed, Report::Done),
        },
    };
    i32::from(tell(report, &said).is_err())
}

fn perform(plan: &Plan, descriptors: &Descriptors) -> Result<Done, Problem> {
    let archive = || descriptors.archive.try_clone().map(File::from).map_err(Problem::of_archive);
    match (&plan.task, &descriptors.output) {
        (Task::Decompress(_), Some(output)) => {
            let output = output.try_clone().map_err(|error| Problem::of_system(UnpackStep::Decompress, "", &error))?;
            decompress(archive()?, File::from(output), plan.bytes)
        }
        (Task::Decompress(_), None) => Err(Problem::System { step: UnpackStep::Open, path: String::new(), errno: 9 }),
        (Task::Unpack(_), _) => {
            check_headers(rewound(archive()?)?)?;
            unpack(rewound(archive()?)?, plan.bytes, plan.entries)
        }
    }
}

fn rewound(mut archive: File) -> Result<impl Read, Problem> {
    io::Seek::rewind(&mut archive).map_err(Problem::of_archive)?;
    Ok(io::BufReader::with_capacity(1 << 20, archive))
}

fn decompress(archive: File, mut output: File, most: u64) -> Result<Done, Problem> {
    let mut plain = MultiGzDecoder::new(io::BufReader::with_capacity(1 << 20, archive));
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0u64;
    loop {
        let length = match plain.read(&mut buffer) {
            Ok(0) => return Ok(Done { bytes, ..Done::default() }),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Problem::of_archive(error)),
        };
        bytes += length as u64;
        if bytes > most {
            return Err(Problem::TooLarge);
        }
        output.write_all(&buffer[..length]).map_err(|error| Problem::of_system(UnpackStep::Decompress, "", &error))?;
    }
}

fn tell(to: BorrowedFd<'_>, report: &Report) -> Result<(), Failure> {
    socket::send(to, report, None)
        .map_err(|error| failure(FailureKind::System, "report", format!("to the import: {error}")))
}
