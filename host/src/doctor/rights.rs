//! What may this user, and what may the host's user?

use ostler_sandbox::standing::{self, Room};
use ostler_sandbox::wire::Failure;
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
        root(looker, &standing::can_enter()).of("rights.root"),
        host_user(&user, looker).of("rights.user"),
        open_files(getrlimit(Resource::Nofile).maximum).of("rights.open_files"),
        processes(getrlimit(Resource::Nproc).maximum).of("rights.processes"),
    ]
}

fn root(looker: Looker, room: &Result<Room, Failure>) -> Finding {
    match (looker, room) {
        (Looker::Root, _) => Finding::ok("yes: everything can be looked at, and a host can be started"),
        (Looker::Another, Ok(Room { sandboxes, ids })) => Finding::ok(format!(
            "no: a host that this user starts has its sandboxes in a user namespace, {sandboxes} at one time with {ids} ids each; \
             git works on repositories as this user"
        )),
        (Looker::Another, Err(refused)) => Finding::warning(
            format!("no, and a host of this user's cannot make sandboxes: {refused}"),
            "do what it says, or start the host as root; `sudo ostler doctor` looks at that",
        ),
    }
}

fn host_user(user: &User, looker: Looker) -> Finding {
    match (user, looker) {
        (_, Looker::Another) => Finding::ok("a host that this user starts runs as this user"),
        (User::There { uid }, _) => Finding::ok(format!("`{USER}` (uid {uid})")),
        (User::Missing { can_be_made: true }, _) => Finding::ok(format!("`{USER}` is made at the first start")),
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

fn open_files(limit: Option<u64>) -> Finding {
    let fix = "ulimit -Hn 524288 before starting it; under systemd LimitNOFILE=524288";
    match limit {
        Some(limit) if limit < FEW_FILES => Finding::failed(format!("at most {limit}"), fix),
        Some(limit) if limit < MANY_FILES => {
            Finding::warning(format!("at most {limit}: enough for some tens of sessions"), fix)
        }
        limit => Finding::ok(format!("at most {}", number(limit))),
    }
}

fn processes(limit: Option<u64>) -> Finding {
    match limit {
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
    use ostler_sandbox::wire::FailureKind;

    let room = Ok(Room { sandboxes: 16, ids: 4096 });
    let refused = Err(Failure {
        kind: FailureKind::System,
        op: "find program".into(),
        errno: 0,
        detail: "`newuidmap` is missing; as root: apt-get install uidmap (shadow-utils on Fedora)".into(),
    });
    let mut all: Vec<Check> = [(Root, &room), (Another, &room), (Another, &refused)]
        .map(|(looker, room)| root(looker, room).of("rights.root"))
        .into();
    for (user, looker) in [
        (User::There { uid: 998 }, Root),
        (User::Missing { can_be_made: true }, Root),
        (User::Missing { can_be_made: false }, Root),
        (User::Missing { can_be_made: false }, Another),
        (User::Unknown("the system's users cannot be read".into()), Root),
    ] {
        all.push(host_user(&user, looker).of("rights.user"));
    }
    for limit in [None, Some(1 << 20), Some(4096), Some(256)] {
        all.push(open_files(limit).of("rights.open_files"));
        all.push(processes(limit).of("rights.processes"));
    }
    all
}
