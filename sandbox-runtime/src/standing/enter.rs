//! An ordinary user becomes root of a user namespace.
//!
//! ```text
//! this process                     child, still in the user's own namespace
//!   fork ───────────────────────►  waits
//!   unshare(user)
//!   Unshared ───────────────────►  newuidmap, newgidmap ─► what /etc/subuid gives the user
//!   ◄──────────────────────────── outcome
//!   becomes 0 in there
//! ```
//!
//! The two programs are the machine's, set-user-id, and check what the user may have. Nothing else needs a privilege.
#![expect(unsafe_code, reason = "unshare of namespaces is unsafe in rustix")]

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind};
use rustix::event::Timespec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Gid, Uid, WaitOptions, getgid, getuid};
use rustix::thread::UnshareFlags;

use super::ids::{NEEDED, Subordinate, blocks, both, name_of, subordinate};
use crate::launcher::Block;
use crate::process;
use crate::step::{Step, failure};

/// Lines of `/etc/subuid` that are used; the kernel takes 340 lines in a map, people have one or two.
const MOST_LINES: usize = 32;

/// Where the two programs are looked for.
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// What the kernel and distributions have switches for, with the value that forbids it and one that allows it.
const SWITCHES: [(&str, &str, &str); 2] =
    [("kernel.unprivileged_userns_clone", "0", "1"), ("user.max_user_namespaces", "0", "15000")];

/// AppArmor's switch, which a profile with `userns,` for a program overrides.
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// The programs and what they are to map.
pub(super) struct Plan {
    uids: (PathBuf, Subordinate),
    gids: (PathBuf, Subordinate),
}

impl Plan {
    /// What would be shared out.
    pub(super) fn blocks(&self) -> Result<Vec<Block>, Failure> {
        blocks(&both(&self.uids.1.as_table(), &self.gids.1.as_table()))
    }
}

/// Finds out what this user may have.
pub(super) fn plan() -> Result<Plan, Failure> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    for (name, forbidding, allowing) in SWITCHES {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == forbidding) {
            let words = format!(
                "`{name}` is {forbidding}, which forbids ordinary users to make user namespaces; as root: sysctl {name}={allowing}"
            );
            return Err(failure(FailureKind::System, "become root of a user namespace", words));
        }
    }
    let is_restricted = fs::read_to_string(APPARMOR).is_ok_and(|value| value.trim() == "1");
    let profile = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"].map(fs::read_to_string);
    let profile = profile.into_iter().find_map(Result::ok).unwrap_or_default();
    if is_restricted && (profile.is_empty() || profile.starts_with("unconfined")) {
        let words = "AppArmor lets only programs with a profile make user namespaces; as root, give ostler one that says \
                     `userns,`, or: sysctl kernel.apparmor_restrict_unprivileged_userns=0";
        return Err(failure(FailureKind::System, "become root of a user namespace", words));
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&users, uid);
    let ids = |file: &str| {
        let table = fs::read_to_string(file).unwrap_or_default();
        let mut found = subordinate(&table, name, uid);
        found.truncate(MOST_LINES);
        let sum: u64 = found.iter().map(|(_, count)| u64::from(*count)).sum();
        if sum >= u64::from(NEEDED) {
            return Ok(found);
        }
        let who = name.map_or_else(|| uid.to_string(), str::to_owned);
        let words = format!(
            "{file} gives {who} {sum} ids and {NEEDED} are needed; as root: usermod --add-subuids 1000000-3097151 \
             --add-subgids 1000000-3097151 {who}"
        );
        Err(failure(FailureKind::System, "find subordinate ids", words))
    };
    let plan = Plan {
        uids: (program("newuidmap")?, Subordinate::new(uid, ids("/etc/subuid")?)),
        gids: (program("newgidmap")?, Subordinate::new(gid, ids("/etc/subgid")?)),
    };
    if rustix::thread::no_new_privs().unwrap_or(false) {
        let words = "this process may not gain privileges, so newuidmap cannot work (NoNewPrivileges of a unit?)";
        return Err(failure(FailureKind::System, "become root of a user namespace", words));
    }
    Ok(plan)
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    let found = FOLDERS.into_iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file());
    let missing = || format!("`{name}` is missing; as root: apt-get install uidmap (shadow-utils on Fedora)");
    found.ok_or_else(|| failure(FailureKind::System, "find program", missing()))
}

/// Becomes root of a user namespace of its own, with the user's subordinate ids.
pub(crate) fn enter() -> Result<(), Failure> {
    let plan = plan()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make socket pair", || "for the mapping of ids".to_owned())?;
    let pid = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let helper = process::fork(|| {
        if process::become_child(c"ostler-ids").is_err() || wait::<u8>(theirs.as_fd()).is_err() {
            return 1;
        }
        let mapped = run(&plan.uids, &pid).and_then(|()| run(&plan.gids, &pid));
        i32::from(socket::send(theirs.as_fd(), &mapped, None).is_err())
    });
    let helper = helper.step("fork", || "for the mapping of ids".to_owned())?;
    drop(theirs);
    // SAFETY: this process has one thread and shares nothing but descriptors with its child.
    let mapped = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .step("unshare", || "a user namespace; `ostler doctor` tells what may forbid it".to_owned())
        .and_then(|()| socket::send(ours.as_fd(), &0_u8, None).map_err(lost))
        .and_then(|()| wait::<Result<(), Failure>>(ours.as_fd())?);
    if mapped.is_err() {
        let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
    }
    let _ = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    mapped?;
    let root = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(root.0, root.0, root.0))
        .and_then(|()| rustix::thread::set_thread_res_uid(root.1, root.1, root.1))
        .step("become root of the namespace", || "setgroups, setresgid and setresuid".to_owned())
}

fn run((program, ids): &(PathBuf, Subordinate), pid: &str) -> Result<(), Failure> {
    let arguments = ids.arguments();
    let shown = || program.display().to_string();
    let output = Command::new(program).arg(pid).args(&arguments).env_clear().output().step("run", shown)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let words = format!("{} {pid} {}: {}", program.display(), arguments.join(" "), said.trim());
    Err(failure(FailureKind::System, "map ids", words))
}

/// Longest wait for the two programs, which may ask a name service.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until the other side says something or ends.
fn wait<T: serde::de::DeserializeOwned>(from: std::os::fd::BorrowedFd<'_>) -> Result<T, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match socket::receive(from) {
            Ok((said, _)) => return Ok(said),
            Err(SocketError::NotReady) => {
                let mut watched = [rustix::event::PollFd::from_borrowed_fd(from, rustix::event::PollFlags::IN)];
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let words = format!("newuidmap and newgidmap did not end within {} s", PATIENCE.as_secs());
                    return Err(failure(FailureKind::Limit, "map ids", words));
                }
                let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
                match rustix::event::poll(&mut watched, Some(&left)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error).step("poll", || "the mapping of ids".to_owned()),
                }
            }
            Err(error) => return Err(lost(error)),
        }
    }
}

fn lost(error: SocketError) -> Failure {
    failure(FailureKind::System, "map ids", format!("the helper was lost: {error}"))
}
