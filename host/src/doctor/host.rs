//! Does the host run well that says that it runs here, and can one listen?

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ostler_protocol::api::Health;

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::cli::discovery::{self, DiscoveryError, NoToken};
use crate::cli::listener::listeners;
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
    /// Another user listens there.
    Stranger {
        url: String,
        uid: u32,
    },
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
    let location = match discovery::find() {
        Ok(Some(location)) => location,
        Ok(None) => return Running::NoneSays,
        Err(error) => return Running::Unreadable(error),
    };
    let token = discovery::token(&location);
    let url = location.url;
    let token = match token {
        Ok(token) => token,
        Err(NoToken::Unreadable(error)) => return Running::NoToken(chain(&error)),
        Err(NoToken::Stranger { uid }) => return Running::Stranger { url, uid },
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
        Running::Stranger { url, uid } => Finding::failed(
            format!("another user (uid {uid}) listens at {url}, where a host was; commands do not send it the token"),
            "end what listens there, or start the host at another address with `--listen`",
        ),
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
    let listening = listeners().into_iter().find(|found| found.address.port() == listen.port())?;
    let socket = format!("socket:[{}]", listening.inode);
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

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let url = || "http://127.0.0.1:7878".to_owned();
    let runnings = [
        Running::NoneSays,
        Running::Unreadable(DiscoveryError::Version { path: "/run/ostler/ostler.json".into(), version: 2 }),
        Running::NoToken("could not read the token file /var/lib/ostler/token: permission denied".into()),
        Running::Stranger { url: url(), uid: 1000 },
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
