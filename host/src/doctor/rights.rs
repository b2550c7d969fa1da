//! What may this user, and what may the host's user?

use rustix::process::{Resource, getrlimit};

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::app::{USER, find};

/// Descriptors that a host of some size needs: a few for each living sandbox, open log and connection.
const MANY_FILES: u64 = 16_384;
/// Fewer make even a small host fail.
const FEW_FILES: u64 = 1_024;

/// Threads and children of a host of some size.
const MANY_PROCESSES: u64 = 1_024;

/// The host's user.
enum User {
    There { uid: u32 },
    Missing { can_be_made: bool },
    Unknown(String),
}

pub(super) fn examine(looker: Looker) -> Vec<Check> {
    let user = match find(USER) {
        Ok(Some(user)) => User::There { uid: user.uid },
        Ok(None) => User::Missing { can_be_made: super::programs::in_path("useradd").is_some() },
        Err(error) => User::Unknown(error.public.message),
    };
    vec![
        root(looker).of("rights.root"),
        host_user(&user, looker).of("rights.user"),
        open_files(getrlimit(Resource::Nofile).maximum, looker).of("rights.open_files"),
        processes(getrlimit(Resource::Nproc).maximum, looker).of("rights.processes"),
    ]
}

fn root(looker: Looker) -> Finding {
    match looker {
        Looker::Root => Finding::ok("yes: everything can be looked at, and a host can be started"),
        Looker::Another => Finding::warning(
            "no: what only root can look at is skipped, and `ostler up` needs root",
            "sudo ostler doctor",
        ),
    }
}

fn host_user(user: &User, looker: Looker) -> Finding {
    match (user, looker) {
        (User::There { uid }, _) => Finding::ok(format!("`{USER}` (uid {uid})")),
        (User::Missing { can_be_made: true }, _) => Finding::ok(format!("`{USER}` is made at the first start")),
        // `/usr/sbin` is in no path but root's.
        (User::Missing { can_be_made: false }, Looker::Another) => {
            Finding::skipped(format!("`{USER}` is missing; whether root can make it is not known"))
        }
        (User::Missing { can_be_made: false }, Looker::Root) => Finding::failed(
            format!("`{USER}` is missing and there is no `useradd` to make it"),
            "apt-get install passwd",
        ),
        (User::Unknown(why), _) => Finding::failed(why, "check the permissions of /etc/passwd"),
    }
}

/// What is not limited, in words.
fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// Limits of another user say nothing about those of root's processes.
fn not_roots() -> Finding {
    Finding::skipped("only root can see what a host would get")
}

fn open_files(limit: Option<u64>, looker: Looker) -> Finding {
    let fix = "ulimit -Hn 524288 before starting it; under systemd LimitNOFILE=524288";
    match limit {
        _ if looker == Looker::Another => not_roots(),
        Some(limit) if limit < FEW_FILES => Finding::failed(format!("at most {limit}"), fix),
        Some(limit) if limit < MANY_FILES => {
            Finding::warning(format!("at most {limit}: enough for some tens of sessions"), fix)
        }
        limit => Finding::ok(format!("at most {}", number(limit))),
    }
}

fn processes(limit: Option<u64>, looker: Looker) -> Finding {
    match limit {
        _ if looker == Looker::Another => not_roots(),
        Some(limit) if limit < MANY_PROCESSES => Finding::warning(
            format!("at most {limit} of a user, with threads: the host may fail to start git"),
            "ulimit -u 8192 before starting it; under systemd LimitNPROC=8192",
        ),
        limit => Finding::ok(format!("at most {} of a user", number(limit))),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    use Looker::{Another, Root};
    let mut all = vec![root(Root).of("rights.root"), root(Another).of("rights.root")];
    for (user, looker) in [
        (User::There { uid: 998 }, Root),
        (User::Missing { can_be_made: true }, Root),
        (User::Missing { can_be_made: false }, Root),
        (User::Missing { can_be_made: false }, Another),
        (User::Unknown("the system's users cannot be read".into()), Root),
    ] {
        all.push(host_user(&user, looker).of("rights.user"));
    }
    for (limit, looker) in
        [(None, Root), (Some(1 << 20), Root), (Some(4096), Root), (Some(256), Root), (Some(256), Another)]
    {
        all.push(open_files(limit, looker).of("rights.open_files"));
        all.push(processes(limit, looker).of("rights.processes"));
    }
    all
}
