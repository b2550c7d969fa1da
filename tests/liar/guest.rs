//! Stands between the host and the real guest as PID 1 of every sandbox, and lies where the repository asks it to.
//!
//! Built by the tests with `rustc` as a static program without dependencies; the real guest is part of it and runs as its child.
//! Every message is passed on as it is, until the host asks for a command that holds [`TRIGGER`] in a sandbox whose file
//! `/workspace/lie` names a lie. What that means is in [`Lie`].

use std::ffi::c_void;
use std::fs;
use std::time::Duration;

/// The real guest.
static REAL: &[u8] = include_bytes!(env!("OSTLER_REAL_GUEST"));

/// In a command: it is time to lie.
const TRIGGER: &[u8] = b"now-lie";

/// While it is there, the next hello is answered with garbage. It is gone afterwards.
const AT_HELLO: &str = "/workspace/lie-at-hello";

const HOST: i32 = 3;
const LARGEST: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// Bytes that are no message, in place of an answer.
    Garbage,
    /// A socket with an answer.
    Descriptor,
    /// A device in place of the next file that is opened.
    File,
    /// An answer that was given already, for ever.
    Flood,
    /// The very first answer, once more.
    Repeat,
    /// Nothing more, whatever is asked.
    Silence,
    /// Garbage when nobody asks for anything any more.
    Later,
}

#[repr(C)]
struct Vector {
    base: *mut c_void,
    length: usize,
}

#[repr(C)]
struct Header {
    name: *mut c_void,
    name_length: u32,
    vectors: *mut Vector,
    vector_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: i32,
}

/// One descriptor as ancillary data.
#[repr(C)]
struct Rights {
    length: usize,
    level: i32,
    kind: i32,
    descriptor: i32,
    padding: i32,
}

#[repr(C)]
struct Poll {
    descriptor: i32,
    events: i16,
    happened: i16,
}

unsafe extern "C" {
    fn fork() -> i32;
    fn _exit(status: i32) -> !;
    fn socketpair(domain: i32, kind: i32, protocol: i32, ends: *mut i32) -> i32;
    fn memfd_create(name: *const i8, flags: u32) -> i32;
    fn write(descriptor: i32, bytes: *const c_void, length: usize) -> isize;
    fn fexecve(descriptor: i32, arguments: *const *const i8, environment: *const *const i8) -> i32;
    fn dup2(from: i32, to: i32) -> i32;
    fn close(descriptor: i32) -> i32;
    fn open(path: *const i8, flags: i32) -> i32;
    fn poll(list: *mut Poll, count: u64, timeout: i32) -> i32;
    fn recvmsg(socket: i32, header: *mut Header, flags: i32) -> isize;
    fn sendmsg(socket: i32, header: *const Header, flags: i32) -> isize;
}

fn main() {
    let guest = start_real_guest();
    let mut relay = Relay { guest, first: Vec::new(), lie: None };
    loop {
        let mut both = [HOST, guest].map(|descriptor| Poll { descriptor, events: 1, happened: 0 });
        // SAFETY: the list lives until the call returns.
        unsafe { poll(both.as_mut_ptr(), 2, -1) };
        if both[0].happened != 0 {
            relay.from_host();
        }
        if both[1].happened != 0 {
            relay.from_guest();
        }
    }
}

/// Starts the real guest and gives this end of its control socket.
fn start_real_guest() -> i32 {
    const SEQPACKET: i32 = 5;
    let mut ends = [0; 2];
    // SAFETY: plain calls; the arrays live until each returns, and this program has one thread.
    unsafe {
        assert_eq!(socketpair(1, SEQPACKET, 0, ends.as_mut_ptr()), 0);
        if fork() != 0 {
            close(ends[1]);
            return ends[0];
        }
        dup2(ends[1], HOST);
        close(ends[0]);
        close(ends[1]);
        let program = memfd_create(c"guest".as_ptr().cast(), 1);
        let mut rest = REAL;
        while !rest.is_empty() {
            let written = write(program, rest.as_ptr().cast(), rest.len());
            assert!(written > 0);
            rest = &rest[written as usize..];
        }
        let arguments = [c"ostler-guest".as_ptr().cast(), std::ptr::null()];
        let environment = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr().cast(), std::ptr::null()];
        fexecve(program, arguments.as_ptr(), environment.as_ptr());
        _exit(1)
    }
}

struct Relay {
    guest: i32,
    /// The first answer that was passed on.
    first: Vec<u8>,
    lie: Option<Lie>,
}

impl Relay {
    fn from_host(&mut self) {
        let (bytes, descriptor) = receive(HOST);
        if self.first.is_empty() && fs::remove_file(AT_HELLO).is_ok() {
            self.lie = Some(Lie::Garbage);
        }
        if contains(&bytes, TRIGGER) {
            self.lie = chosen();
        }
        send(self.guest, &bytes, descriptor);
        close_if_there(descriptor);
    }

    fn from_guest(&mut self) {
        let (bytes, descriptor) = receive(self.guest);
        if self.first.is_empty() {
            self.first.clone_from(&bytes);
        }
        match (self.lie, descriptor) {
            (Some(Lie::Garbage), _) => {
                send(HOST, &[0xff; 30], None);
                self.lie = None;
            }
            (Some(Lie::Descriptor), _) => {
                let mut ends = [0; 2];
                // SAFETY: the array lives until the call returns.
                unsafe { socketpair(1, 1, 0, ends.as_mut_ptr()) };
                send(HOST, &bytes, Some(ends[0]));
            }
            (Some(Lie::File), Some(_)) => {
                // SAFETY: the path ends with a zero.
                let device = unsafe { open(c"/dev/zero".as_ptr().cast(), 0) };
                send(HOST, &bytes, Some(device));
                self.lie = None;
            }
            (Some(Lie::Flood), _) => {
                for _ in 0..100_000 {
                    send(HOST, &bytes, None);
                }
                self.lie = None;
            }
            (Some(Lie::Repeat), _) => {
                send(HOST, &self.first, None);
                self.lie = None;
            }
            (Some(Lie::Silence), _) => {}
            (Some(Lie::Later), _) => {
                send(HOST, &bytes, descriptor);
                self.lie = None;
                // SAFETY: this program has one thread.
                if unsafe { fork() } == 0 {
                    std::thread::sleep(Duration::from_secs(2));
                    send(HOST, &[0xff; 30], None);
                    // SAFETY: ends the child.
                    unsafe { _exit(0) };
                }
            }
            (None | Some(Lie::File), _) => send(HOST, &bytes, descriptor),
        }
        close_if_there(descriptor);
    }
}

fn chosen() -> Option<Lie> {
    match fs::read_to_string("/workspace/lie").ok()?.trim() {
        "garbage" => Some(Lie::Garbage),
        "descriptor" => Some(Lie::Descriptor),
        "file" => Some(Lie::File),
        "flood" => Some(Lie::Flood),
        "repeat" => Some(Lie::Repeat),
        "silence" => Some(Lie::Silence),
        "later" => Some(Lie::Later),
        _ => None,
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// One message and its descriptor. The end of either side is the end of this program, and of the sandbox.
fn receive(socket: i32) -> (Vec<u8>, Option<i32>) {
    const NO_ROOM: i32 = -1;
    let mut bytes = vec![0; LARGEST];
    let mut rights = Rights { length: 0, level: 0, kind: 0, descriptor: NO_ROOM, padding: 0 };
    let mut vector = Vector { base: bytes.as_mut_ptr().cast(), length: bytes.len() };
    let mut header = header(&mut vector, &mut rights, size_of::<Rights>());
    // SAFETY: everything that the header names lives until the call returns.
    let received = unsafe { recvmsg(socket, &raw mut header, 0) };
    if received <= 0 {
        std::process::exit(0);
    }
    bytes.truncate(received as usize);
    let has_descriptor = header.control_length >= CONTROL_LENGTH;
    (bytes, has_descriptor.then_some(rights.descriptor))
}

/// Length of the ancillary data of one descriptor, without padding.
const CONTROL_LENGTH: usize = 20;

fn send(socket: i32, bytes: &[u8], descriptor: Option<i32>) {
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const NO_SIGNAL: i32 = 0x4000;
    let mut rights =
        Rights { length: CONTROL_LENGTH, level: SOL_SOCKET, kind: SCM_RIGHTS, descriptor: descriptor.unwrap_or(0), padding: 0 };
    let mut vector = Vector { base: bytes.as_ptr().cast_mut().cast(), length: bytes.len() };
    let length = if descriptor.is_some() { size_of::<Rights>() } else { 0 };
    let header = header(&mut vector, &mut rights, length);
    // SAFETY: everything that the header names lives until the call returns.
    if unsafe { sendmsg(socket, &raw const header, NO_SIGNAL) } < 0 {
        std::process::exit(0);
    }
}

fn header(vector: &mut Vector, rights: &mut Rights, control_length: usize) -> Header {
    let control: *mut c_void = if control_length == 0 { std::ptr::null_mut() } else { (&raw mut *rights).cast() };
    Header { name: std::ptr::null_mut(), name_length: 0, vectors: vector, vector_count: 1, control, control_length, flags: 0 }
}

fn close_if_there(descriptor: Option<i32>) {
    if let Some(descriptor) = descriptor {
        // SAFETY: it was received by this program and is used by nobody else.
        unsafe { close(descriptor) };
    }
}

