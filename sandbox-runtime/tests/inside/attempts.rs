//! Attempts at getting out of a sandbox, or at reaching what ways out begin with. Each does as little as shows the point.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::{ended, errno, raw_value, spawn};

const NEW_MOUNTS: i64 = 0x0002_0000;
const NEW_CGROUP: i64 = 0x0200_0000;
const NEW_USER: i64 = 0x1000_0000;
const NEW_NETWORK: i64 = 0x4000_0000;

const SOCKET: i64 = 41;
const UNSHARE: i64 = 272;
const MOUNT: i64 = 165;
const IOCTL: i64 = 16;
/// O_NOCTTY
const NO_TERMINAL: i32 = 0o400;

/// How an attempt ended: in what it got hold of, or in what stopped it.
type Outcome = Result<String, String>;

pub fn make(name: &str, arguments: &[&str]) -> Outcome {
    match (name, arguments) {
        ("namespace", []) => in_child(|| unshare(NEW_USER).map(|()| "a user namespace of its own".to_owned())),
        ("mount", []) => in_child(|| {
            become_root_of_a_namespace(NEW_MOUNTS)?;
            mount("none", "/tmp", "tmpfs", "")
        }),
        ("overlay", []) => in_child(|| {
            become_root_of_a_namespace(NEW_MOUNTS)?;
            mount("none", "/tmp", "tmpfs", "")?;
            for folder in ["/tmp/upper", "/tmp/work", "/tmp/merged"] {
                fs::create_dir(folder).map_err(words)?;
            }
            mount("none", "/tmp/merged", "overlay", "lowerdir=/etc,upperdir=/tmp/upper,workdir=/tmp/work")
        }),
        ("release_agent", []) => in_child(release_agent),
        ("fsopen", []) => in_child(|| {
            become_root_of_a_namespace(NEW_MOUNTS)?;
            call("fsopen", [430, text("tmpfs"), 0, 0, 0, 0, 0])
        }),
        ("netfilter", []) => in_child(|| {
            become_root_of_a_namespace(NEW_NETWORK)?;
            call("a socket to the firewall", [SOCKET, 16, 3, 12, 0, 0, 0])
        }),
        ("families", []) => families(),
        ("type", []) => in_child(type_into_a_terminal),
        ("keys", []) => call("a keyring", [250, 0, -3, 1, 0, 0, 0]),
        ("handle", []) => handle(),
        ("setuid", []) => setuid(),
        ("as_another", [program]) => as_another(program),
        ("privileges", []) => privileges(),
        ("open", [path]) => fs::read(path).map_err(words).and_then(content),
        ("device", [path]) => {
            let mut byte = [0; 1];
            let read = File::open(path).and_then(|mut device| device.read(&mut byte));
            read.map(|_| format!("a byte of {path}")).map_err(words)
        }
        ("raw_socket", []) => call("a raw socket", [SOCKET, 2, 3, 1, 0, 0, 0]),
        ("interface", []) => interface(),
        ("inherit", []) => inherited(),
        ("steer", [paths @ ..]) => any(paths, |path| {
            // Opening is enough; nothing is written.
            OpenOptions::new().write(true).open(path).map(|_| format!("{path} open for writing")).map_err(words)
        }),
        ("look", [paths @ ..]) => any(paths, |path| fs::read(path).map_err(words).and_then(content)),
        ("abstract_socket", [name]) => abstract_socket(name),
        ("shared_memory", [key]) => {
            let key = key.parse().map_err(|_| "no number".to_owned())?;
            call("a foreign segment", [29, key, 0, 0, 0, 0, 0])
        }
        ("debug", [pid]) => debug(pid),
        _ => {
            // Neither through nor stopped.
            eprintln!("unknown attempt {name} with {} arguments", arguments.len());
            std::process::exit(2)
        }
    }
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}

fn content(bytes: Vec<u8>) -> Outcome {
    if bytes.is_empty() { Err("it is empty".to_owned()) } else { Ok(format!("{} bytes", bytes.len())) }
}

/// Through as soon as one is.
fn any(operands: &[&str], attempt: impl Fn(&str) -> Outcome) -> Outcome {
    let mut stopped = Vec::new();
    for operand in operands {
        match attempt(operand) {
            Ok(what) => return Ok(format!("{operand}: {what}")),
            Err(why) => stopped.push(format!("{operand}: {why}")),
        }
    }
    Err(stopped.join("; "))
}

/// What an attempt does to its process ends with a child.
fn in_child(attempt: impl FnOnce() -> Outcome) -> Outcome {
    let child = spawn(|| {
        let outcome = attempt();
        let (status, words) = match &outcome {
            Ok(what) => (0, what),
            Err(why) => (1, why),
        };
        eprintln!("{words}");
        status
    });
    match ended(child) {
        0 => Ok("see above".to_owned()),
        _ => Err("see above".to_owned()),
    }
}

fn text(text: &str) -> i64 {
    // Kept for ever: the program ends in a moment.
    CString::new(text).map_or(0, |text| text.into_raw() as i64)
}

/// The call gives something, or its error.
fn call(what: &str, values: [i64; 7]) -> Outcome {
    let value = raw_value(values);
    if value < 0 { Err(format!("{what}: error {}", errno())) } else { Ok(what.to_owned()) }
}

fn unshare(flags: i64) -> Result<(), String> {
    call("unshare", [UNSHARE, flags, 0, 0, 0, 0, 0]).map(|_| ())
}

/// As an ordinary user: nobody may map root of the namespace outside without a capability for that.
fn become_root_of_a_namespace(more: i64) -> Result<(), String> {
    const USER: i64 = 1000;
    // setresgid, setresuid, and files in /proc of its own again: prctl PR_SET_DUMPABLE.
    call("another group", [119, USER, USER, USER, 0, 0, 0])?;
    call("another user", [117, USER, USER, USER, 0, 0, 0])?;
    call("dumpable", [157, 4, 1, 0, 0, 0, 0])?;
    unshare(NEW_USER | more)?;
    fs::write("/proc/self/setgroups", "deny").map_err(words)?;
    fs::write("/proc/self/gid_map", format!("0 {USER} 1")).map_err(words)?;
    fs::write("/proc/self/uid_map", format!("0 {USER} 1")).map_err(words)
}

fn mount(source: &str, target: &str, kind: &str, options: &str) -> Outcome {
    call(&format!("{kind} at {target}"), [MOUNT, text(source), text(target), text(kind), 0, text(options), 0])
}

/// A hierarchy of control groups in which one file names a program that the machine's root runs.
fn release_agent() -> Outcome {
    become_root_of_a_namespace(NEW_MOUNTS | NEW_CGROUP)?;
    any(&["pids", "memory", "cpu", "freezer"], |controller| mount("none", "/tmp", "cgroup", controller))
}

/// Families that led to writing the page cache of files which were opened for reading, or out to the machine.
fn families() -> Outcome {
    let sockets: [(&str, i64, i64, i64); 6] = [
        ("AF_ALG", 38, 5, 0),
        ("AF_RXRPC", 33, 2, 2),
        ("AF_KEY", 15, 3, 2),
        ("AF_VSOCK", 40, 1, 0),
        ("NETLINK_XFRM", 16, 3, 6),
        ("NETLINK_NETFILTER", 16, 3, 12),
    ];
    let opened: Vec<&str> = sockets
        .into_iter()
        .filter(|(_, family, kind, protocol)| raw_value([SOCKET, *family, *kind, *protocol, 0, 0, 0]) >= 0)
        .map(|(name, ..)| name)
        .collect();
    if opened.is_empty() { Err("no such socket".to_owned()) } else { Ok(opened.join(", ")) }
}

/// A character into the input of the terminal that one has, past the keyboard.
fn type_into_a_terminal() -> Outcome {
    // setsid, so that the terminal that is opened next becomes the session's.
    call("a session", [112, 0, 0, 0, 0, 0, 0])?;
    let master = OpenOptions::new().read(true).write(true).custom_flags(NO_TERMINAL).open("/dev/ptmx").map_err(words)?;
    let (mut locked, mut number) = (0i32, 0i32);
    // It stays open until the end: closing it would end this process, whose terminal it is.
    let master = master.into_raw_fd().into();
    call("unlocked", [IOCTL, master, 0x4004_5431, &raw mut locked as i64, 0, 0, 0])?;
    call("numbered", [IOCTL, master, 0x8004_5430, &raw mut number as i64, 0, 0, 0])?;
    let terminal = OpenOptions::new().read(true).write(true).open(format!("/dev/pts/{number}")).map_err(words)?;
    call("a character is typed", [IOCTL, terminal.as_raw_fd().into(), 0x5412, c"x".as_ptr() as i64, 0, 0, 0])
}

/// A file by its handle, past the permissions of the folders above it.
fn handle() -> Outcome {
    let mount = File::open("/dev/shm").map_err(words)?;
    let mut handle = [0u8; 136];
    handle[0] = 128;
    let mut number = 0i32;
    let at = mount.as_raw_fd().into();
    // AT_EMPTY_PATH, O_DIRECTORY: kernels since 6.11 give directories to whoever may mount their file system.
    let named = [303, at, text(""), handle.as_mut_ptr() as i64, &raw mut number as i64, 0x1000, 0];
    call("a handle", named)?;
    call("a directory by its handle", [304, at, handle.as_ptr() as i64, 0x1_0000, 0, 0, 0])
}

const COPY: &str = "/workspace/setuid";

/// A program with the setuid bit, run by somebody who is not root.
fn setuid() -> Outcome {
    fs::copy("/proc/self/exe", COPY).map_err(words)?;
    fs::set_permissions(COPY, fs::Permissions::from_mode(0o4755)).map_err(words)?;
    as_another(COPY)
}

/// Runs a copy of this program as an ordinary user of the sandbox and asks what it may.
fn as_another(program: &str) -> Outcome {
    let output = Command::new(program).args(["try", "privileges"]).uid(1000).gid(1000).output().map_err(words)?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Whether this process has anything that an ordinary user has not.
fn privileges() -> Outcome {
    let status = fs::read_to_string("/proc/self/status").map_err(words)?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let (ids, capabilities) = (field("Uid:"), field("CapEff:"));
    let effective = ids.split_whitespace().nth(1).unwrap_or_default();
    if effective == "0" || capabilities.bytes().any(|digit| digit != b'0') {
        return Ok(format!("uids {ids}, capabilities {capabilities}"));
    }
    Err(format!("uids {ids}, no capabilities"))
}

/// Takes down the interface that holds the door's rules.
fn interface() -> Outcome {
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    let socket = raw_value([SOCKET, 2, 2, 0, 0, 0, 0]);
    call("lo is down", [IOCTL, socket, 0x8914, request.as_mut_ptr() as i64, 0, 0, 0])
}

fn inherited() -> Outcome {
    let status = fs::read_to_string("/proc/self/status").map_err(words)?;
    let set = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let (inheritable, ambient) = (set("CapInh:"), set("CapAmb:"));
    if format!("{inheritable}{ambient}").bytes().any(|digit| digit != b'0') {
        return Ok(format!("inheritable {inheritable}, ambient {ambient}"));
    }
    Err("both sets are empty".to_owned())
}

fn abstract_socket(name: &str) -> Outcome {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(words)?;
    std::os::unix::net::UnixStream::connect_addr(&address).map(|_| format!("connected to @{name}")).map_err(words)
}

/// Memory, descriptors and program of another process.
fn debug(pid: &str) -> Outcome {
    let number = pid.parse().map_err(|_| "no number".to_owned())?;
    let traced = call("traced", [101, 16, number, 0, 0, 0, 0]);
    if traced.is_ok() {
        return traced;
    }
    any(&["mem", "fd/3", "exe"], |name| {
        OpenOptions::new()
            .read(true)
            .open(format!("/proc/{pid}/{name}"))
            .map(|_| "open".to_owned())
            .map_err(words)
    })
}
