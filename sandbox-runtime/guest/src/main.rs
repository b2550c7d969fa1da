//! The program `ostler-guest`: puts the process in order and serves until the control socket closes.
//!
//! Exit status: 0 when the host and the launcher closed the link, 1 when it broke otherwise, 2 when the start failed.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use ostler_guest::{ServeError, serve, take_control};
use ostler_wire::guest::WORKSPACE;
use ostler_wire::socket::SocketError;
use rustix::fs::Mode;
use rustix::process::DumpableBehavior;

fn main() -> ExitCode {
    let control = match prepare() {
        Ok(control) => control,
        Err(error) => return complain("the start failed", &error, 2),
    };
    match serve(control, Path::new(WORKSPACE)) {
        ServeError::Link(SocketError::Closed) => ExitCode::SUCCESS,
        ServeError::Link(error) => complain("the control link broke", &error, 1),
        error => complain("serving failed", &error, 2),
    }
}

fn prepare() -> rustix::io::Result<std::os::fd::OwnedFd> {
    let control = take_control()?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    rustix::process::chdir("/")?;
    // Commands run with the same uid; this keeps them from tracing PID 1 and from taking its descriptors.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(control)
}

/// Says what is wrong on standard error, which the launcher keeps.
fn complain(what: &str, error: &dyn std::error::Error, status: u8) -> ExitCode {
    let mut text = format!("ostler-guest: {what}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(status)
}
