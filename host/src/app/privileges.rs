//! The user that the host runs as, and becoming it.
//!
//! Only the launcher keeps root. Everything that reads what a model, a plugin or a client sent runs as a system user. Started by an
//! ordinary user, the host runs as that user, and nothing has root.

use std::process::Command;

use ostler_sandbox::standing::Standing;
use rustix::process::{Gid, Uid};

use super::error::AppError;

/// Name of the system user of the host.
pub(crate) const USER: &str = "ostler";

/// A user of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Takes as many descriptors as this process may have: each living sandbox, open log and connection needs some.
pub(super) fn raise_limits() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let raised = rustix::process::Rlimit { current: files, maximum: files };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}

/// What the launcher will have: root of the machine, or of a user namespace that it makes for itself.
pub(super) fn standing() -> Standing {
    if is_root() { Standing::of_this_process() } else { Standing::Namespace }
}

/// The user that the host runs as.
pub(super) fn host_user() -> Result<User, AppError> {
    if is_root() {
        return system_user();
    }
    Ok(User { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() })
}

/// The host's system user, made where it is missing.
fn system_user() -> Result<User, AppError> {
    if let Some(user) = find(USER)? {
        return Ok(user);
    }
    // `useradd` looks for the name before it takes its own lock, and replaces a user that came between: two hosts that
    // start at once would then be different users.
    let unreadable = |error| AppError::new("the system's users cannot be locked", "check /etc/passwd").because(error);
    let table = std::fs::File::open("/etc/passwd").map_err(unreadable)?;
    rustix::fs::flock(&table, rustix::fs::FlockOperation::LockExclusive).map_err(|error| unreadable(error.into()))?;
    if let Some(user) = find(USER)? {
        return Ok(user);
    }
    let words = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"];
    let made = Command::new("useradd").args(words).args(["--shell", "/usr/sbin/nologin", USER]).output();
    let hint = format!("make it: useradd --system --user-group --no-create-home {USER}");
    let output = made.map_err(|error| {
        AppError::new(format!("the system user `{USER}` is missing and could not be made"), hint.clone()).because(error)
    })?;
    // What counts is that it is there, whoever made it.
    match find(USER)? {
        Some(user) => Ok(user),
        None => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(AppError::new(format!("the system user `{USER}` is missing and could not be made: {why}"), hint))
        }
    }
}

/// The user of this name, unless it is root.
pub(crate) fn find(name: &str) -> Result<Option<User>, AppError> {
    let table = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| AppError::new("the system's users cannot be read", "check /etc/passwd").because(error))?;
    Ok(parse(&table, name))
}

fn parse(table: &str, name: &str) -> Option<User> {
    let line = table.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let user = User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? };
    (user.uid != 0).then_some(user)
}

/// Becomes the user for good. Must be called while the process has one thread: other threads would keep root.
pub(super) fn become_user(user: User) -> Result<(), AppError> {
    if is_root() {
        drop_root(user)?;
    }
    let failed = |error: rustix::io::Errno| {
        AppError::new("cannot give up gaining privileges", "this is a defect; please report it").because(error)
    };
    rustix::thread::set_no_new_privs(true).map_err(failed)?;
    ostler_sandbox::terminal::forbid_typing().map_err(|error| {
        let message = "cannot keep the host from typing into the terminal that it was started in";
        AppError::new(message, "the kernel needs seccomp filters (CONFIG_SECCOMP_FILTER)").because(error)
    })
}

fn drop_root(user: User) -> Result<(), AppError> {
    let failed = |error: rustix::io::Errno| {
        AppError::new(format!("cannot become the user `{USER}`"), "the launcher's log has more").because(error)
    };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[]).map_err(failed)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    if rustix::process::getuid().is_root() || rustix::process::geteuid().is_root() {
        return Err(AppError::new("the process is still root after dropping it", "this is a defect; please report it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "root:x:0:0:root:/root:/bin/bash\nostler-x:x:7:7::/:/bin/sh\nostler:x:998:997::/nonexistent:/x\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        assert_eq!(parse(TABLE, "ostler"), Some(User { uid: 998, gid: 997 }));
        assert_eq!(parse(TABLE, "ostl"), None);
    }

    #[test]
    fn root_under_another_name_is_no_user_for_the_host() {
        assert_eq!(parse("ostler:x:0:0::/:/x", "ostler"), None);
    }
}
