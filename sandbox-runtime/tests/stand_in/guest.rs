//! Stands in for the guest as PID 1 and does inside a sandbox what a test asks for.
//!
//! Built by the tests with `rustc` as a static program without dependencies. One request per message on
//! descriptor 3, in words separated by spaces; one answer each, beginning with `ok` or `err`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

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
    // SAFETY: the launcher put the control socket on descriptor 3.
    let mut control = unsafe { File::from_raw_fd(3) };
    let mut buffer = vec![0; 65536];
    loop {
        let length = match control.read(&mut buffer) {
            Ok(0) | Err(_) => sleep_forever(),
            Ok(length) => length,
        };
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let mut answer = answer(&request).unwrap_or_else(|error| format!("err {error}")).into_bytes();
        answer.truncate(60_000);
        let _ = control.write_all(&answer);
    }
}

/// The launcher keeps the other end, so this happens when it was killed.
fn sleep_forever() -> ! {
    loop {
        // SAFETY: has no arguments.
        unsafe { pause() };
    }
}

fn answer(request: &str) -> Result<String, String> {
    let words: Vec<&str> = request.split(' ').collect();
    let text = |error: std::io::Error| error.to_string();
    Ok(match words[..] {
        ["ping"] => "ok".to_owned(),
        ["read", path] => format!("ok {}", String::from_utf8_lossy(&fs::read(path).map_err(text)?)),
        ["write", path, content] => fs::write(path, content).map(|()| "ok".to_owned()).map_err(text)?,
        ["link", target, path] => {
            let _ = fs::remove_dir_all(path);
            std::os::unix::fs::symlink(target, path).map(|()| "ok".to_owned()).map_err(text)?
        }
        ["stat", path] => {
            let found = fs::symlink_metadata(path).map_err(text)?;
            format!("ok {} {} {:o}", found.uid(), found.gid(), found.mode())
        }
        ["list", path] => {
            let entries = fs::read_dir(path).map_err(text)?;
            let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            format!("ok {}", names.join(" "))
        }
        ["descriptors"] => {
            let entries = fs::read_dir("/proc/self/fd").map_err(text)?;
            let mut targets: Vec<String> = entries
                .flatten()
                .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read_link(entry.path()).ok()?)))
                .map(|(number, target)| format!("{number}={}", target.display()))
                .collect();
            targets.sort();
            format!("ok {}", targets.join(" "))
        }
        ["environment"] => format!("ok {}", std::env::vars().map(|(name, _)| name).collect::<Vec<_>>().join(" ")),
        ["spawn"] => format!("ok {}", child(|| unsafe { setsid(); sleep_forever() })?),
        ["fork", count] => {
            let wanted: usize = count.parse().map_err(|_| "count")?;
            let made = (0..wanted).take_while(|_| child(|| sleep_forever()).is_ok()).count();
            format!("ok {made}")
        }
        ["memory", mebibytes] => {
            let size = mebibytes.parse::<usize>().map_err(|_| "size")? << 20;
            ended(child(move || {
                let block = vec![1u8; size];
                std::hint::black_box(&block);
                0
            })?)
        }
        ["tcp", address] => tcp(address)?,
        ["udp", address, content] => udp(address, content)?,
        ["syscall", ref numbers @ ..] => {
            let mut values = [0i64; 7];
            for (value, number) in values.iter_mut().zip(numbers) {
                *value = number.parse().map_err(|_| "number")?;
            }
            ended(child(move || raw(values))?)
        }
        ["i386", number] => {
            let number: u32 = number.parse().map_err(|_| "number")?;
            ended(child(move || old_call(number))?)
        }
        ["listen", address] => {
            let listener = std::net::TcpListener::bind(address).map_err(|error| error.to_string())?;
            child(move || i32::from(echo(&listener).is_err()))?;
            "ok".to_owned()
        }
        ["exit", status] => std::process::exit(status.parse().unwrap_or(1)),
        _ => return Err(format!("unknown request {request}")),
    })
}

/// Exit status: the errno, or 0.
fn raw(v: [i64; 7]) -> i32 {
    // SAFETY: a test may do to this child what it likes.
    unsafe {
        if syscall(v[0], v[1], v[2], v[3], v[4], v[5], v[6]) < 0 { *__errno_location() } else { 0 }
    }
}

#[cfg(target_arch = "x86_64")]
fn old_call(number: u32) -> i32 {
    let result: i32;
    // SAFETY: a 32-bit system call that takes no pointer.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") number as i32 => result) };
    if result < 0 { -result } else { 0 }
}

#[cfg(not(target_arch = "x86_64"))]
fn old_call(_: u32) -> i32 {
    0
}

fn child(run: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: this program has one thread.
    match unsafe { fork() } {
        0 => {
            let status = run();
            // SAFETY: ends the child.
            unsafe { _exit(status) }
        }
        pid if pid > 0 => Ok(pid),
        _ => Err(std::io::Error::last_os_error().to_string()),
    }
}

fn ended(pid: i32) -> String {
    let mut status = 0;
    // SAFETY: the status lives until the call returns.
    unsafe { waitpid(pid, &raw mut status, 0) };
    if status & 0x7f == 0 { format!("ok {}", (status >> 8) & 0xff) } else { format!("ok killed {}", status & 0x7f) }
}

/// Accepts connections for ever and sends back what each begins with.
fn echo(listener: &std::net::TcpListener) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello)?;
        stream.write_all(&hello)?;
    }
}

fn tcp(address: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let address = address.parse().map_err(|_| "address")?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).map_err(text)?;
    stream.write_all(b"hello").map_err(text)?;
    let mut reply = [0; 100];
    let length = stream.read(&mut reply).map_err(text)?;
    Ok(format!("ok {}", String::from_utf8_lossy(&reply[..length])))
}

fn udp(address: &str, content: &str) -> Result<String, String> {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let exchange = || {
        socket.connect(address)?;
        socket.send(content.as_bytes())?;
        let mut reply = [0; 100];
        let length = socket.recv(&mut reply)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&reply[..length]).into_owned())
    };
    exchange()
        .map(|reply| format!("ok {reply}"))
        .map_err(|error| format!("{:?} after {} ms", error.kind(), start.elapsed().as_millis()))
}
