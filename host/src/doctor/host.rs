//! Does the host run well that says that it runs here, and can one listen?

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ostler_protocol::api::Health;

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::api::load_token;
use crate::cli::discovery::{self, DiscoveryError, Location};
use crate::telemetry::chain;

const PATIENCE: Duration = Duration::from_secs(5);

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What became of asking the host.
enum Running {
    NoneSays,
    Unreadable(DiscoveryError),
    /// It says where it is and the token cannot be read.
    NoToken(String),
    Answers {
        url: String,
        version: String,
    },
    Answered {
        url: String,
        what: String,
    },
    Silent {
        url: String,
        why: String,
    },
}

/// What became of trying to listen.
enum Port {
    Any,
    Free,
    /// The host that was found has it.
    Ours,
    Taken(Option<String>),
    Refused(io::Error),
}

pub(super) async fn examine(listen: Option<SocketAddr>, looker: Looker) -> Vec<Check> {
    let running = ask().await;
    let mut checks = vec![running_finding(&running).of("host.running")];
    if let Some(listen) = listen {
        checks.push(port_finding(listen, &port(listen, &running), looker).of("host.port"));
    }
    checks
}

async fn ask() -> Running {
    let Location { url, token_path } = match discovery::find() {
        Ok(Some(location)) => location,
        Ok(None) => return Running::NoneSays,
        Err(error) => return Running::Unreadable(error),
    };
    let token = match load_token(&token_path) {
        Ok(token) => token,
        Err(error) => return Running::NoToken(chain(&error)),
    };
    let Ok(http) = crate::http::plain().no_proxy().timeout(PATIENCE).build() else {
        return Running::Silent { url, why: "no client can be made".to_owned() };
    };
    let response = match http.get(format!("{url}/v1/health")).bearer_auth(token.expose()).send().await {
        Ok(response) => response,
        Err(error) => return Running::Silent { url, why: chain(&error.without_url()) },
    };
    let status = response.status();
    match response.json::<Health>().await {
        Ok(health) if status.is_success() => Running::Answers { url, version: health.version },
        _ => Running::Answered { url, what: format!("{}, not as a host does", status.as_u16()) },
    }
}

fn running_finding(running: &Running) -> Finding {
    match running {
        Running::NoneSays => Finding::skipped("no host says that it runs here"),
        Running::Unreadable(error) => Finding::skipped(chain(error)),
        Running::NoToken(why) => Finding::skipped(why),
        Running::Answers { url, version } if version == VERSION => {
            // A host without its launcher ends.
            Finding::ok(format!("it answers at {url}, so its launcher lives; version {version}"))
        }
        Running::Answers { url, version } => Finding::warning(
            format!("the host at {url} is of version {version}, this is {VERSION}"),
            "end it and start it again: sessions go on where they were",
        ),
        Running::Answered { url, what } => Finding::failed(
            format!("{url} answered {what}"),
            "start the host again; if another program took its address, choose another `--listen`",
        ),
        Running::Silent { url, why } => Finding::warning(
            format!("a host said that it runs at {url} and does not answer: {why}"),
            "ostler up, after which sessions go on where they were",
        ),
    }
}

fn port(listen: SocketAddr, running: &Running) -> Port {
    if listen.port() == 0 {
        return Port::Any;
    }
    // Listening ends at once; nobody can have connected.
    match TcpListener::bind(listen) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => match running {
            Running::Answers { url, .. } if *url == format!("http://{listen}") => Port::Ours,
            _ => Port::Taken(holder(listen)),
        },
        Err(error) => Port::Refused(error),
    }
}

fn port_finding(listen: SocketAddr, port: &Port, looker: Looker) -> Finding {
    let other = "end that program, or choose another `--listen` (`listen` in the section [host])";
    match port {
        Port::Any => Finding::ok("a free port is taken at the start"),
        Port::Free => Finding::ok(format!("{listen} is free")),
        Port::Ours => Finding::ok(format!("{listen} is the running host's")),
        Port::Taken(Some(holder)) => Finding::failed(format!("{listen} is taken by {holder}"), other),
        Port::Taken(None) if looker == Looker::Another => {
            Finding::warning(format!("{listen} is taken; only root can see by whom"), other)
        }
        Port::Taken(None) => Finding::failed(format!("{listen} is taken"), other),
        Port::Refused(error) if error.kind() == ErrorKind::PermissionDenied && looker == Looker::Another => {
            Finding::skipped(format!("only root may listen on {listen}"))
        }
        Port::Refused(error) => Finding::failed(
            format!("cannot listen on {listen}: {error}"),
            "choose an address of this machine with `--listen` (`listen` in the section [host])",
        ),
    }
}

/// The program that listens on an address, as far as this user may see it.
fn holder(listen: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let socket = format!("socket:[{}]", tables.iter().find_map(|table| inode(table, listen.port()))?);
    for process in std::fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
        let Ok(number) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds =
            |file: std::fs::DirEntry| std::fs::read_link(file.path()).is_ok_and(|to| *to.as_os_str() == *socket);
        if files.filter_map(Result::ok).any(holds) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (process {number})", name.trim()));
        }
    }
    None
}

/// The inode of the socket that listens on a port, in a table of the kernel.
fn inode(table: &str, port: u16) -> Option<&str> {
    const LISTENS: &str = "0A";
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = fields.filter(|fields| fields.get(3) == Some(&LISTENS));
    let port = format!(":{port:04X}");
    listening.find(|fields| fields[1].ends_with(&port)).and_then(|fields| fields.get(9).copied())
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let url = || "http://127.0.0.1:7878".to_owned();
    let runnings = [
        Running::NoneSays,
        Running::Unreadable(DiscoveryError::Version { path: "/run/ostler/ostler.json".into(), version: 2 }),
        Running::NoToken("could not read the token file /var/lib/ostler/token: permission denied".into()),
        Running::Answers { url: url(), version: VERSION.into() },
        Running::Answers { url: url(), version: "0.0.9".into() },
        Running::Answered { url: url(), what: "404, not as a host does".into() },
        Running::Silent { url: url(), why: "connection refused".into() },
    ];
    let mut all: Vec<Check> = runnings.iter().map(|running| running_finding(running).of("host.running")).collect();
    for (port, looker) in [
        (Port::Any, Looker::Root),
        (Port::Free, Looker::Root),
        (Port::Ours, Looker::Root),
        (Port::Taken(Some("`nginx` (process 4711)".into())), Looker::Root),
        (Port::Taken(None), Looker::Root),
        (Port::Taken(None), Looker::Another),
        (Port::Refused(ErrorKind::AddrNotAvailable.into()), Looker::Root),
        (Port::Refused(ErrorKind::PermissionDenied.into()), Looker::Another),
    ] {
        all.push(port_finding(SocketAddr::from(([127, 0, 0, 1], 7878)), &port, looker).of("host.port"));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_socket_of_a_port_is_found_only_where_it_listens() {
        let table = "  sl  local_address rem_address   st\n   \
                     0: 0100007F:1EC6 00000000:0000 01 0:0 00:0 0 0 0 1111 1\n   \
                     1: 0100007F:1EC6 00000000:0000 0A 0:0 00:0 0 0 0 2222 1\n";
        assert_eq!(super::inode(table, 7878), Some("2222"));
        assert_eq!(super::inode(table, 7879), None);
    }
}
