//! The limit on what a sandbox writes to the disk.
//!
//! No file system of ours has a quota per folder everywhere, so the launcher looks: often at how much of the whole file system
//! is used, which costs nothing, and where that has changed, or after a while, a child measures every sandbox ([`super::meter`]).
//! One that is over its limit is ended, with its files kept.
//!
//! ```text
//! every second: statfs ── changed, or half a minute later ──► meter (one at a time, a fifth of the time at most)
//!                                                                └─► over the limit: ended, files kept
//! ```
//!
//! A sandbox whose kept files are over the limit already can be started again, to be cleaned up: it may use what it has and a
//! little more, and less as soon as it uses less.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ostler_wire::Failure;
use ostler_wire::launcher::{Files, Limits};
use ostler_wire::socket::{self, SocketError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::hidden::{MOST_DESCRIPTORS, MOST_MAPPINGS};
use super::limits::Reached;
use super::meter::{self, Beyond, DEEPEST, Measured, Room, Subject};
use super::sandboxes::{Because, Phase, Sandbox};
use super::state::{Launcher, in_words, log};
use crate::step::Step;

/// Between two looks at the file system.
const LOOK: Duration = Duration::from_secs(1);
/// The longest time between two measurements.
const AT_LEAST: Duration = Duration::from_secs(30);
/// A measurement that takes longer is given up: a disk does not answer.
const PATIENCE: Duration = Duration::from_secs(600);
/// A measurement is followed by at least so many times its duration without one.
const REST: u32 = 4;

/// What the file system may have changed by without anybody being measured.
const CHANGED: Room = Room { bytes: 16 << 20, files: 4096 };

/// What a sandbox that is over its limit may use beyond what it has.
const MARGIN: Room = Room { bytes: 64 << 20, files: 10_000 };

/// Messages of a meter that are read at one time.
const BATCH: usize = 64;

/// When was looked and who is looking.
#[derive(Default)]
pub(super) struct Disk {
    /// When there is something to look at again; nothing while no sandbox lives.
    next: Option<Instant>,
    /// The whole file system at the last measurement, and when that was.
    last: Option<(Room, Instant)>,
    pub(super) meter: Option<Meter>,
}

/// A measurement.
pub(super) struct Meter {
    pub(super) pid: Pid,
    pub(super) report: OwnedFd,
    began: Instant,
}

impl Disk {
    /// When something is to be done if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.meter {
            Some(meter) => Some(meter.began + PATIENCE),
            None => self.next,
        }
    }
}

impl Launcher {
    /// Does what is due by the clock.
    pub(super) fn look_at_disk(&mut self, now: Instant) {
        if let Some(meter) = &self.disk.meter {
            if meter.began + PATIENCE <= now {
                log(&format!(
                    "measuring the sandboxes' files took more than {} s and was given up",
                    PATIENCE.as_secs()
                ));
                let _ = kill_process(meter.pid, Signal::KILL);
                // Nobody is killed twice for it.
                self.disk.meter = None;
                self.disk.next = Some(now + AT_LEAST);
            }
            return;
        }
        if self.disk.next.is_some_and(|next| next > now) {
            return;
        }
        if self.stopping.is_some() || !self.sandboxes.values().any(is_measured) {
            self.disk.next = None;
            return;
        }
        self.disk.next = Some(now + LOOK);
        let Ok(whole) = rustix::fs::statvfs(self.store.sandboxes()) else { return };
        let used = Room {
            bytes: whole.f_blocks.saturating_sub(whole.f_bfree) * whole.f_frsize,
            files: whole.f_files.saturating_sub(whole.f_ffree),
        };
        let unknown = self.sandboxes.values().any(|sandbox| is_measured(sandbox) && sandbox.allowed.is_none());
        let due = self.disk.last.is_none_or(|(last, when)| is_changed(last, used) || when + AT_LEAST <= now);
        if !(due || unknown) {
            return;
        }
        match self.start_meter(&self.subjects(), now) {
            Ok(meter) => {
                self.disk.meter = Some(meter);
                self.disk.last = Some((used, now));
            }
            Err(failed) => {
                log(&format!("the sandboxes' files are not measured: {failed}"));
                self.disk.next = Some(now + AT_LEAST);
            }
        }
    }

    /// What is measured is about to end.
    pub(super) fn stop_measuring(&mut self) {
        if let Some(meter) = self.disk.meter.take() {
            let _ = kill_process(meter.pid, Signal::KILL);
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        let measured = self.sandboxes.iter().filter(|(_, sandbox)| is_measured(sandbox));
        measured
            .map(|(id, sandbox)| Subject {
                sandbox: id.clone(),
                instance: sandbox.instance,
                ids: sandbox.record.ids(),
                enough: sandbox.allowed.unwrap_or_else(|| at_first(sandbox)),
            })
            .collect()
    }

    fn start_meter(&self, subjects: &[Subject], began: Instant) -> Result<Meter, Failure> {
        let (report, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .step("make socket pair", || "for a meter".to_owned())?;
        Ok(Meter { pid: meter::start(subjects, &self.store, &self.cgroups, theirs)?, report, began })
    }

    /// Reads what was measured.
    pub(super) fn read_meter(&mut self) {
        for _ in 0..BATCH {
            let Some(meter) = &self.disk.meter else { return };
            match socket::receive::<Measured>(meter.report.as_fd()) {
                Ok((measured, _)) => self.measured(&measured),
                Err(SocketError::NotReady) => return,
                Err(_) => {
                    // It has said everything; its end is told by its exit status.
                    let now = Instant::now();
                    self.disk.next = Some(now + LOOK.max((now - meter.began) * REST));
                    self.disk.meter = None;
                    return;
                }
            }
        }
    }

    fn measured(&mut self, measured: &Measured) {
        let Some(sandbox) = self.sandboxes.get_mut(&measured.sandbox) else { return };
        if !is_living(sandbox) || sandbox.instance != measured.instance {
            return;
        }
        let before = sandbox.allowed.unwrap_or_else(|| at_first(sandbox));
        let allowed = allowed(sandbox.limits, before, measured.used);
        sandbox.allowed = Some(allowed);
        if let Some(reached) = reached(sandbox.limits, allowed, measured) {
            self.end(&measured.sandbox, Because::Died { why: reached.to_string() }, Files::Keep);
        }
    }
}

/// Whether the process is the meter, which then has ended.
pub(super) fn meter_ended(launcher: &mut Launcher, pid: Pid, status: WaitStatus) -> bool {
    if launcher.disk.meter.as_ref().is_none_or(|meter| meter.pid != pid) {
        return false;
    }
    // What it said before is still there.
    launcher.read_meter();
    if status.exit_status() != Some(0) {
        log(&format!("measuring the sandboxes' files {}", in_words(status)));
    }
    true
}

fn is_living(sandbox: &Sandbox) -> bool {
    matches!(sandbox.phase, Phase::Living)
}

/// What serves git has no files of its own.
fn is_measured(sandbox: &Sandbox) -> bool {
    is_living(sandbox) && sandbox.service_of.is_none()
}

fn is_changed(last: Room, now: Room) -> bool {
    last.bytes.abs_diff(now.bytes) > CHANGED.bytes || last.files.abs_diff(now.files) > CHANGED.files
}

/// What is allowed before it is known how much a sandbox has: anything, where it has files of an earlier one.
fn at_first(sandbox: &Sandbox) -> Room {
    match sandbox.restored {
        true => Room { bytes: u64::MAX, files: u64::MAX },
        false => Room { bytes: sandbox.limits.disk, files: sandbox.limits.files },
    }
}

/// What is allowed from now on: the limit, or for one that is over it what it uses and a little, never more than before.
fn allowed(limits: Limits, before: Room, used: Room) -> Room {
    let one = |limit: u64, before: u64, used: u64, margin: u64| before.min(used.saturating_add(margin)).max(limit);
    Room {
        bytes: one(limits.disk, before.bytes, used.bytes, MARGIN.bytes),
        files: one(limits.files, before.files, used.files, MARGIN.files),
    }
}

fn reached(limits: Limits, allowed: Room, measured: &Measured) -> Option<Reached> {
    let used = measured.used;
    match measured.beyond {
        Some(Beyond::Depth) => return Some(Reached::Depth { limit: DEEPEST as u64 }),
        Some(Beyond::Descriptors) => return Some(Reached::Descriptors { limit: MOST_DESCRIPTORS }),
        Some(Beyond::Mappings) => return Some(Reached::Mappings { limit: MOST_MAPPINGS }),
        None => {}
    }
    if used.bytes > allowed.bytes {
        return Some(Reached::Disk { used: used.bytes, limit: limits.disk });
    }
    (used.files > allowed.files).then_some(Reached::Files { used: used.files, limit: limits.files })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        memory: 1 << 30,
        pids: 100,
        cpu_millis: 1000,
        cpu_weight: 100,
        io_weight: 100,
        disk: 1 << 30,
        files: 100_000,
    };

    fn room(bytes: u64) -> Room {
        Room { bytes, files: 1 }
    }

    #[test]
    fn who_is_over_the_limit_may_clean_up_and_never_grow() {
        let limit = LIMITS.disk;
        let unknown = Room { bytes: u64::MAX, files: u64::MAX };
        let first = allowed(LIMITS, unknown, room(3 * limit));
        assert_eq!(first, Room { bytes: 3 * limit + MARGIN.bytes, files: LIMITS.files });
        let measured = |used| Measured { sandbox: "a".into(), instance: 1, used, beyond: None };
        assert_eq!(reached(LIMITS, first, &measured(room(3 * limit))), None);
        let grown = room(first.bytes + 1);
        assert_eq!(allowed(LIMITS, first, grown), first, "growing moves nothing");
        let expected = Reached::Disk { used: grown.bytes, limit };
        assert_eq!(reached(LIMITS, first, &measured(grown)), Some(expected));
        let less = allowed(LIMITS, first, room(2 * limit));
        assert_eq!(less.bytes, 2 * limit + MARGIN.bytes, "what was given back is not had again");
        assert_eq!(allowed(LIMITS, less, room(10)).bytes, limit);
    }

    #[test]
    fn files_count_like_bytes() {
        let measured =
            |files| Measured { sandbox: "a".into(), instance: 1, used: Room { bytes: 1, files }, beyond: None };
        let limit = Room { bytes: LIMITS.disk, files: LIMITS.files };
        assert_eq!(reached(LIMITS, limit, &measured(LIMITS.files)), None);
        let more = reached(LIMITS, limit, &measured(LIMITS.files + 1));
        assert_eq!(more, Some(Reached::Files { used: 100_001, limit: 100_000 }));
    }

    #[test]
    fn a_little_less_room_is_no_reason_to_measure() {
        let last = Room { bytes: 1 << 40, files: 1 << 20 };
        assert!(!is_changed(last, Room { bytes: last.bytes - 4096, ..last }));
        assert!(is_changed(last, Room { bytes: last.bytes + (17 << 20), ..last }));
        assert!(is_changed(last, Room { files: last.files - 5000, ..last }), "somebody else may have removed more");
    }
}
