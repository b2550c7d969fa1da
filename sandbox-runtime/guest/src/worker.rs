//! Work on files that may take long (a sync, a huge directory) in short-lived children, so that PID 1 always answers.
//!
//! A worker sends one encoded answer through a pipe and ends. It owns nothing else; what it does is in [`crate::files`].

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ostler_wire::guest::{Message, Reply};
use ostler_wire::{Failure, FailureKind, MAX_MESSAGE};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{failed, refused};
use crate::link::{Link, Ticket, encode};
use crate::sys::{self, Forked};

/// Most workers at a time.
const MAX_WORKERS: usize = 16;

/// Longest that a worker may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The running workers.
#[derive(Default)]
pub(crate) struct Workers {
    running: Vec<Worker>,
}

/// A child that works on one request.
struct Worker {
    pid: Pid,
    to: Ticket,
    answer: OwnedFd,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl Workers {
    /// Runs `work` in a child; its answer is sent when it is there.
    pub(crate) fn start(
        &mut self,
        to: Ticket,
        now: Instant,
        work: impl FnOnce() -> Result<Reply, Failure>,
    ) -> Result<(), Failure> {
        if self.running.len() >= MAX_WORKERS {
            return Err(refused(FailureKind::Limit, "worker", format!("{MAX_WORKERS} file operations are under way")));
        }
        let (answer, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("pipe", errno, "starting a worker"))?;
        rustix::io::ioctl_fionbio(&answer, true).map_err(|errno| failed("ioctl", errno, "starting a worker"))?;
        match sys::fork().map_err(|errno| failed("fork", errno, "starting a worker"))? {
            Forked::Child => {
                let bytes = encode(to, Message::Reply(work()));
                sys::exit(i32::from(write_all(&writer, &bytes).is_err()));
            }
            Forked::Parent(pid) => {
                self.running.push(Worker { pid, to, answer, bytes: Vec::new(), deadline: now + DEADLINE });
                Ok(())
            }
        }
    }

    /// The pipes to poll, each with the number that [`Self::read`] takes.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = (Pid, BorrowedFd<'_>)> {
        use std::os::fd::AsFd;
        self.running.iter().map(|worker| (worker.pid, worker.answer.as_fd()))
    }

    /// Whether a process is one of the workers.
    pub(crate) fn has(&self, pid: Pid) -> bool {
        self.running.iter().any(|worker| worker.pid == pid)
    }

    /// Reads what a worker wrote; sends its answer when that is complete.
    pub(crate) fn read(&mut self, pid: Pid, buffer: &mut [u8], link: &mut Link) {
        let Some(index) = self.running.iter().position(|worker| worker.pid == pid) else { return };
        let worker = &mut self.running[index];
        match rustix::io::retry_on_intr(|| rustix::io::read(&worker.answer, &mut *buffer)) {
            Err(Errno::AGAIN) => return,
            Ok(count) if count > 0 && worker.bytes.len() + count <= MAX_MESSAGE => {
                worker.bytes.extend_from_slice(&buffer[..count]);
                return;
            }
            Ok(0) | Err(_) => {}
            Ok(_) => worker.bytes.clear(),
        }
        let worker = self.running.swap_remove(index);
        if worker.bytes.is_empty() {
            link.reply(
                worker.to,
                Err(refused(FailureKind::System, "worker", "the file operation was killed or took too long")),
            );
        } else {
            link.forward(worker.to, worker.bytes);
        }
    }

    /// Kills workers that take too long; the end of their pipe is their answer.
    pub(crate) fn tick(&mut self, now: Instant) {
        for worker in self.running.iter_mut().filter(|worker| now >= worker.deadline) {
            let _ = kill_process(worker.pid, Signal::KILL);
            worker.deadline = now + DEADLINE;
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.running.iter().map(|worker| worker.deadline).min()
    }
}

fn write_all(pipe: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(pipe, bytes))?;
        bytes = &bytes[count..];
    }
    Ok(())
}
