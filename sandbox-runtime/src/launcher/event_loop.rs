//! Waiting for something to happen, and telling the table about it.
//!
//! One thread, one `poll`; nothing in here or below waits for anything else but, for a bounded time, the child of
//! [`super::mint`]. Slow work is in children.

use std::os::fd::AsFd;

use ostler_wire::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::setup::{Signals, drain};
use super::state::{Launcher, log};
use crate::step::Step;

/// Serves until the launcher is to end.
pub(super) fn serve(launcher: &mut Launcher) -> Result<(), Failure> {
    loop {
        let ready = wait(launcher)?;
        if ready.signals {
            match drain(&launcher.signals) {
                Signals::Children => {}
                Signals::Stop if launcher.stopping.is_none() => {
                    log("told to end by a signal");
                    launcher.stop(None);
                }
                Signals::Stop => {}
            }
        }
        if ready.reports {
            launcher.read_reports();
        }
        if ready.memory {
            launcher.hear_of_memory();
        }
        if ready.meter {
            launcher.read_meter();
        }
        if ready.signals {
            launcher.reap();
        }
        if ready.listener {
            launcher.accept();
        }
        if ready.callers {
            launcher.greet();
        }
        if ready.host_out {
            let flushed = launcher.host.as_mut().map_or(Ok(()), |host| host.flush());
            if let Err(broken) = flushed {
                launcher.lose_host(&broken.0);
            }
        }
        if ready.host_in {
            launcher.listen_to_host();
        }
        launcher.tick();
        if launcher.is_finished() {
            return Ok(());
        }
    }
}

/// What can go on.
#[derive(Default)]
struct Ready {
    signals: bool,
    listener: bool,
    callers: bool,
    host_in: bool,
    host_out: bool,
    reports: bool,
    memory: bool,
    meter: bool,
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Caller,
    Host,
    Report,
    Memory,
    Meter,
}

fn wait(launcher: &Launcher) -> Result<Ready, Failure> {
    let pause = launcher.pause();
    let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
    let mut sources = vec![Source::Signals, Source::Listener];
    let mut watched =
        vec![PollFd::new(&launcher.signals, PollFlags::IN), PollFd::new(&launcher.listener.socket, PollFlags::IN)];
    let mut watch = |source, descriptor, flags| {
        sources.push(source);
        watched.push(PollFd::from_borrowed_fd(descriptor, flags));
    };
    for caller in &launcher.callers {
        watch(Source::Caller, caller.socket.as_fd(), PollFlags::IN);
    }
    if let Some(host) = &launcher.host {
        let out = if host.wants_to_send() { PollFlags::OUT } else { PollFlags::empty() };
        watch(Source::Host, host.socket.as_fd(), PollFlags::IN | out);
    }
    for report in launcher.sandboxes.values().filter_map(|sandbox| sandbox.report.as_ref()) {
        watch(Source::Report, report.as_fd(), PollFlags::IN);
    }
    for memory in launcher.sandboxes.values().filter_map(|sandbox| sandbox.memory.as_ref()) {
        watch(Source::Memory, memory.event.as_fd(), PollFlags::IN);
    }
    if let Some(meter) = &launcher.disk.meter {
        watch(Source::Meter, meter.report.as_fd(), PollFlags::IN);
    }
    match poll(&mut watched, Some(&pause)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).step("poll", || format!("{} descriptors", watched.len())),
    }
    let mut ready = Ready::default();
    for (source, watched) in sources.into_iter().zip(&watched) {
        let happened = watched.revents();
        if happened.is_empty() {
            continue;
        }
        match source {
            Source::Signals => ready.signals = true,
            Source::Listener => ready.listener = true,
            Source::Caller => ready.callers = true,
            Source::Report => ready.reports = true,
            Source::Memory => ready.memory = true,
            Source::Meter => ready.meter = true,
            Source::Host => {
                ready.host_out |= happened.contains(PollFlags::OUT);
                ready.host_in |= happened.intersects(!PollFlags::OUT);
            }
        }
    }
    Ok(ready)
}
