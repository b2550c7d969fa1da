//! Runs inside a sandbox, as a command or as whatever a test makes it, and tells what is so there.
//!
//! Built by the tests with `rustc` as a static program without dependencies, so that it needs nothing of an image.
//! `posture` prints what the process is, `calls` what the kernel answers to a table of system calls, both as JSON;
//! `reach ADDRESS…` what connects; `swap DIRECTORY LINK TARGET` goes on exchanging a directory with a link in the background; `try NAME ARGUMENT…` makes one attempt at getting out and says how it ended: status 0 when it
//! got through, 1 when it was stopped. As PID 1 it is a hostile guest: see `hostile`. `background` starts a process of its own session, which waits for the end, and ends; `wait` waits for the end itself.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the numbers of system calls in here are those of x86-64");

mod attempts;
mod calls;
mod hostile;
mod json;
mod posture;

use std::net::{SocketAddr, TcpStream};
use std::process::exit;
use std::time::Duration;

use json::Json;

unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
    fn pause() -> i32;
    fn _exit(status: i32) -> !;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn syscall(number: i64, ...) -> i64;
    fn __errno_location() -> *mut i32;
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() == 1 && words.is_empty() {
        hostile::be();
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["posture"] => println!("{}", posture::read("self")),
        ["calls"] => println!("{}", calls::read()),
        ["reach", ref addresses @ ..] => {
            println!("{}", Json::object(addresses.iter().map(|address| (*address, Json::Text(reach(address))))));
        }
        ["swap", directory, link, target] => swap(directory, link, target),
        ["overwrite", path] => hostile::overwrite(path),
        ["wait"] => loop {
            // SAFETY: waits for a signal and does nothing else.
            unsafe { pause() };
        },
        ["background"] => println!("{}", spawn(|| unsafe {
            setsid();
            loop {
                pause();
            }
        })),
        ["try", name, ref arguments @ ..] => match attempts::make(name, arguments) {
            Ok(what) => println!("through: {what}"),
            Err(why) => {
                println!("stopped: {why}");
                exit(1)
            }
        },
        _ => {
            eprintln!("usage: posture | calls | reach ADDRESS… | background | wait | try NAME ARGUMENT…");
            exit(2)
        }
    }
}

/// Makes a link beside a directory and exchanges the two for ever, in a process of its own. At the target lies a file `file`.
fn swap(directory: &str, link: &str, target: &str) {
    let made = std::fs::create_dir_all(target)
        .and_then(|()| std::fs::write(format!("{target}/file"), "elsewhere"))
        .and_then(|()| std::os::unix::fs::symlink(target, link));
    if let Err(error) = made {
        eprintln!("{error}");
        exit(1);
    }
    let [directory, link] = [directory, link].map(|path| std::ffi::CString::new(path).unwrap_or_default());
    spawn(move || {
        // renameat2 with RENAME_EXCHANGE
        while raw([316, -100, directory.as_ptr() as i64, -100, link.as_ptr() as i64, 2, 0]) == 0 {}
        1
    });
}

/// Whether a TCP connection is possible, in a word.
fn reach(address: &str) -> String {
    let Ok(address) = address.parse::<SocketAddr>() else { return "no address".to_owned() };
    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        Ok(_) => "connected".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A system call with up to six arguments: the number of its error, or 0.
pub fn raw(v: [i64; 7]) -> i32 {
    if raw_value(v) < 0 { errno() } else { 0 }
}

/// A system call with up to six arguments.
pub fn raw_value(v: [i64; 7]) -> i64 {
    // SAFETY: a test may do to itself what it likes.
    unsafe { syscall(v[0], v[1], v[2], v[3], v[4], v[5], v[6]) }
}

pub fn errno() -> i32 {
    // SAFETY: the C library gives each thread one.
    unsafe { *__errno_location() }
}

/// Runs something in a child and gives its number.
pub fn spawn(run: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this program has one thread.
    match unsafe { fork() } {
        0 => {
            let status = run();
            // SAFETY: ends the child.
            unsafe { _exit(status) }
        }
        pid => pid,
    }
}

/// Waits for a child and gives its raw status.
pub fn ended(pid: i32) -> i32 {
    let mut status = -1;
    // SAFETY: the status lives until the call returns.
    unsafe { waitpid(pid, &raw mut status, 0) };
    status
}
