//! Stands in for the guest as PID 1 and does inside a sandbox what a test asks for.
//!
//! Built by the tests with `rustc` as a static program without dependencies. One request per message on
//! descriptor 3, in words separated by spaces; one answer each, beginning with `ok` or `err`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd};
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
    fn mmap(at: *mut c_void, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn prctl(option: i32, first: u64, second: u64, third: u64, fourth: u64) -> i32;
    fn msync(at: *mut c_void, length: usize, flags: i32) -> i32;
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
        // Uses memory without end in a child and waits for nothing.
        ["devour"] => {
            child(|| {
                let mut blocks = Vec::new();
                loop {
                    blocks.push(vec![1u8; 1 << 20]);
                    std::hint::black_box(&blocks);
                }
            })?;
            "ok".to_owned()
        }
        ["fill", path, mebibytes] => {
            let size = mebibytes.parse::<usize>().map_err(|_| "size")?;
            let mut file = File::create(path).map_err(text)?;
            (0..size).try_for_each(|_| file.write_all(&[1; 1 << 20])).map_err(text)?;
            "ok".to_owned()
        }
        // In no folder, and open as long as this process lives.
        ["hide", mebibytes] => {
            let size = mebibytes.parse::<usize>().map_err(|_| "size")?;
            let mut file = hidden("/hidden")?;
            (0..size).try_for_each(|_| file.write_all(&[1; 1 << 20])).map_err(text)?;
            std::mem::forget(file);
            "ok".to_owned()
        }
        // The same, mapped and not open.
        ["hide-mapped", mebibytes] => {
            hide_mapped("/hidden-mapped", mebibytes.parse::<usize>().map_err(|_| "size")? << 20)?;
            "ok".to_owned()
        }
        // The same in a process whose first thread has ended.
        ["hide-behind-ended-thread", mebibytes] => {
            let size = mebibytes.parse::<usize>().map_err(|_| "size")? << 20;
            child(move || {
                std::thread::spawn(move || {
                    let _ = hide_mapped("/hidden-behind", size);
                    sleep_forever()
                });
                // SAFETY: ends this thread alone.
                unsafe { syscall(60, 0) };
                1
            })?;
            "ok".to_owned()
        }
        // The same, open in a thread that shares its descriptors with no other, of a process that nobody like it may look at.
        ["hide-in-thread", mebibytes] => {
            let size = mebibytes.parse::<usize>().map_err(|_| "size")?;
            // SAFETY: PR_SET_DUMPABLE takes a number.
            unsafe { prctl(4, 0, 0, 0, 0) };
            let (said, heard) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                // SAFETY: close_range with CLOSE_RANGE_UNSHARE, of numbers that nobody has.
                if unsafe { syscall(436, u32::MAX - 1, u32::MAX, 2) } != 0 {
                    let _ = said.send(Err(std::io::Error::last_os_error().to_string()));
                    return;
                }
                let filled = hidden("/hidden-in-thread").and_then(|mut file| {
                    (0..size).try_for_each(|_| file.write_all(&[1; 1 << 20])).map_err(text)?;
                    Ok(file)
                });
                let _ = said.send(filled.as_ref().map(drop).map_err(Clone::clone));
                sleep_forever()
            });
            heard.recv().map_err(|error| error.to_string())??;
            "ok".to_owned()
        }
        ["files", path, count] => {
            let wanted: usize = count.parse().map_err(|_| "count")?;
            fs::create_dir_all(path).map_err(text)?;
            (0..wanted).try_for_each(|number| fs::write(format!("{path}/{number}"), "")).map_err(text)?;
            "ok".to_owned()
        }
        ["descend", depth] => {
            let depth: usize = depth.parse().map_err(|_| "depth")?;
            std::env::set_current_dir("/").map_err(text)?;
            (0..depth).try_for_each(|_| fs::create_dir("d").and_then(|()| std::env::set_current_dir("d"))).map_err(text)?;
            std::env::set_current_dir("/").map_err(text)?;
            "ok".to_owned()
        }
        // As many as can be had; they stay open.
        ["open", path] => {
            let mut held = 0;
            while let Ok(file) = File::open(path) {
                std::mem::forget(file);
                held += 1;
            }
            format!("ok {held}")
        }
        ["remove", path] => fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)).map(|()| "ok".to_owned()).map_err(text)?,
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

/// Maps a file that was removed and writes to all of it, for as long as this process lives.
fn hide_mapped(path: &str, size: usize) -> Result<(), String> {
    let file = hidden(path)?;
    file.set_len(size as u64).map_err(|error| error.to_string())?;
    // SAFETY: a new region, read and written and shared with the file, which this program then writes to.
    let bytes = unsafe {
        let region = mmap(std::ptr::null_mut(), size, 3, 1, file.as_raw_fd(), 0);
        std::slice::from_raw_parts_mut(region.cast::<u8>(), size)
    };
    drop(file);
    bytes.fill(1);
    // Written to the disk, so that it has its blocks.
    // SAFETY: the region is mapped for as long as this program lives.
    unsafe { msync(bytes.as_mut_ptr().cast(), size, 4) };
    Ok(())
}

/// An open file that was removed.
fn hidden(path: &str) -> Result<File, String> {
    let file = File::options().read(true).write(true).create(true).open(path).map_err(|error| error.to_string())?;
    fs::remove_file(path).map_err(|error| error.to_string())?;
    Ok(file)
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
