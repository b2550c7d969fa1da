//! What a repository declares: reading and judging the file. Pure.
//!
//! Strict: what is not understood is an error that names place, reason and remedy, and then no service is started. The text
//! may be an attacker's: sizes and numbers are bounded, and what an error repeats of it is escaped and short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ostler_protocol::processes::{MAX_COMMAND, MAX_PROCESS_NAME, is_process_name};
use serde::Deserialize;
use toml::{Table, Value};

use crate::config::{TimeSpan, nearest};

/// Where a repository declares its services.
pub const FILE: &str = ".ostler/services.toml";

/// Most bytes of the file.
pub(super) const MAX_FILE: u64 = 64 * 1024;

/// Most services.
pub(super) const MAX_SERVICES: usize = 16;

/// Most variables of one service, and most bytes of a value.
const MAX_VARIABLES: usize = 64;
const MAX_VALUE: usize = 4096;

/// Longest address or piece of the file that is repeated in an error, in characters.
const SHOWN: usize = 80;

/// Longest address of a readiness check, in bytes.
const MAX_ADDRESS: usize = 1024;

/// How long a service may take to be ready, and how long it may be asked to.
const READY_WITHIN: Duration = Duration::from_secs(60);
const MAX_READY_WITHIN: Duration = Duration::from_secs(600);

/// Time between asking a service to end and ending it by force, and its longest.
const STOP_GRACE: Duration = Duration::from_secs(5);
pub(super) const MAX_STOP_GRACE: Duration = Duration::from_secs(30);

const KEYS: [&str; 8] =
    ["command", "ready", "ready_within", "restart", "after", "environment", "stop_signal", "stop_grace"];

/// Signals that may ask a service to end.
const SIGNALS: [(&str, i32); 6] =
    [("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGUSR1", 10), ("SIGUSR2", 12), ("SIGTERM", 15)];

/// A declared service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    /// Command line for bash.
    pub(super) command: String,
    pub(super) ready: Ready,
    pub(super) ready_within: Duration,
    pub(super) restart: Restart,
    /// Those that must be ready before it is started.
    pub(super) after: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Number of the signal that asks it to end.
    pub(super) stop_signal: i32,
    pub(super) stop_grace: Duration,
}

/// When a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// Once it runs.
    Running,
    /// Once something takes connections on a port.
    Port(u16),
    /// Once it answers a request.
    Http(Address),
    /// Once a command succeeds.
    Command(String),
}

/// What is asked for by HTTP, and the status that counts; any from 200 to 399 where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) authority: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) status: Option<u16>,
}

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    /// Never.
    Never,
    /// Where it ended with another status than 0, or was not ready in time.
    #[default]
    OnFailure,
    /// Always.
    Always,
}

/// Why a declaration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeclarationError {
    #[error("{FILE} has more than {MAX_FILE} bytes; declare less")]
    TooLarge,
    #[error("{FILE} is not UTF-8; write it as text")]
    Encoding,
    #[error("{FILE}: line {line}: {reason}; see the chapter on processes for what it may hold")]
    Syntax { line: usize, reason: String },
    #[error("{FILE} declares {0} services; at most {MAX_SERVICES} are possible")]
    TooMany(usize),
    #[error(
        "{FILE}: `{0}` is not a name of a service; take 1 to {MAX_PROCESS_NAME} lowercase letters, digits and hyphens"
    )]
    Name(String),
    #[error("{FILE}: `{0}` is no service; a service is a table such as `[web]` with a `command`")]
    NoTable(String),
    #[error("{FILE}: service `{service}` has an unknown key `{key}`; {hint}")]
    UnknownKey { service: String, key: String, hint: String },
    #[error("{FILE}: service `{service}` has no `command`; say what it runs")]
    NoCommand { service: String },
    #[error("{FILE}: `{key}` of service `{service}` {reason}")]
    Value { service: String, key: &'static str, reason: String },
    #[error("{FILE}: service `{service}` is to start after `{after}`, which is not declared{hint}")]
    UnknownService { service: String, after: String, hint: String },
    #[error("{FILE}: services wait for each other: {0}; take one of them out of `after`")]
    Cycle(String),
}

/// Reads a declaration. The services come in an order in which each follows those that it starts after.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Service>, DeclarationError> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(DeclarationError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DeclarationError::Encoding)?;
    let table: Table = text.parse().map_err(|error| syntax(text, &error))?;
    if table.len() > MAX_SERVICES {
        return Err(DeclarationError::TooMany(table.len()));
    }
    let mut services = Vec::new();
    for (name, value) in table {
        if !is_process_name(&name) {
            return Err(DeclarationError::Name(shown(&name)));
        }
        let Value::Table(keys) = value else { return Err(DeclarationError::NoTable(name)) };
        services.push(service(name, keys)?);
    }
    let names: BTreeSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
    for service in &services {
        for after in &service.after {
            if !names.contains(after.as_str()) {
                return Err(unknown_service(&service.name, after, &names));
            }
        }
    }
    order(services)
}

fn syntax(text: &str, error: &toml::de::Error) -> DeclarationError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    DeclarationError::Syntax { line, reason: shown(error.message()) }
}

fn unknown_service(service: &str, after: &str, names: &BTreeSet<&str>) -> DeclarationError {
    let names: Vec<&str> = names.iter().copied().collect();
    let hint = nearest(after, &names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    DeclarationError::UnknownService { service: service.to_owned(), after: shown(after), hint }
}

/// The keys of one service, one after the other.
struct Keys {
    service: String,
    table: Table,
}

impl Keys {
    fn wrong(&self, key: &'static str, reason: impl Into<String>) -> DeclarationError {
        DeclarationError::Value { service: self.service.clone(), key, reason: reason.into() }
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>, DeclarationError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, format!("is {}; write text in quotes", kind(&other)))),
        }
    }

    fn command(&self, key: &'static str, command: String) -> Result<String, DeclarationError> {
        if command.trim().is_empty() || command.contains('\0') {
            return Err(self.wrong(key, "has an empty command, or one with a zero byte; write a command line for bash"));
        }
        if command.len() > MAX_COMMAND {
            let reason =
                format!("has a command of {} bytes; at most {MAX_COMMAND} fit, put it into a file", command.len());
            return Err(self.wrong(key, reason));
        }
        Ok(command)
    }

    fn time(&mut self, key: &'static str, default: Duration, most: Duration) -> Result<Duration, DeclarationError> {
        let Some(text) = self.text(key)? else { return Ok(default) };
        let most_words = TimeSpan(most);
        match text.parse::<TimeSpan>() {
            Ok(TimeSpan(time)) if !time.is_zero() && time <= most => Ok(time),
            Ok(_) => {
                Err(self.wrong(key, format!("is `{}`; take more than 0 and at most `{most_words}`", shown(&text))))
            }
            Err(_) => Err(self.wrong(key, format!("is `{}`; take a time with its unit such as `90s`", shown(&text)))),
        }
    }

    fn after(&mut self) -> Result<Vec<String>, DeclarationError> {
        let Some(value) = self.table.remove("after") else { return Ok(Vec::new()) };
        let names = Vec::<String>::deserialize(value);
        let names: BTreeSet<String> = names
            .map_err(|_| self.wrong("after", "is no list of names; write `[\"database\"]`"))?
            .into_iter()
            .collect();
        Ok(names.into_iter().collect())
    }

    fn environment(&mut self) -> Result<Vec<(String, String)>, DeclarationError> {
        const KEY: &str = "environment";
        let Some(value) = self.table.remove(KEY) else { return Ok(Vec::new()) };
        let found = BTreeMap::<String, String>::deserialize(value)
            .map_err(|_| self.wrong(KEY, "is no table of texts; write `{ PORT = \"8000\" }`"))?;
        if found.len() > MAX_VARIABLES {
            return Err(self.wrong(KEY, format!("has {} variables; at most {MAX_VARIABLES} are possible", found.len())));
        }
        for (name, value) in &found {
            if !is_variable(name) {
                let reason =
                    format!("has the variable `{}`; take letters, digits and `_`, no digit first", shown(name));
                return Err(self.wrong(KEY, reason));
            }
            if value.len() > MAX_VALUE || value.contains('\0') {
                let reason =
                    format!("has a value of `{}` with a zero byte or more than {MAX_VALUE} bytes", shown(name));
                return Err(self.wrong(KEY, reason));
            }
        }
        Ok(found.into_iter().collect())
    }

    fn ready(&mut self) -> Result<Ready, DeclarationError> {
        const KEY: &str = "ready";
        const RIGHT: &str =
            "write `{ port = 5432 }`, `{ http = \"http://127.0.0.1:8080/health\" }` or `{ command = \"pg_isready\" }`";
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            port: Option<i64>,
            http: Option<String>,
            status: Option<u16>,
            command: Option<String>,
        }
        let Some(value) = self.table.remove(KEY) else { return Ok(Ready::Running) };
        let raw = Raw::deserialize(value)
            .map_err(|error| self.wrong(KEY, format!("does not fit: {}; {RIGHT}", shown(error.message()))))?;
        match raw {
            Raw { port: Some(port), http: None, status: None, command: None } => match u16::try_from(port) {
                Ok(port) if port > 0 => Ok(Ready::Port(port)),
                _ => Err(self.wrong(KEY, format!("has the port {port}; ports are 1 to 65535"))),
            },
            Raw { port: None, http: Some(url), status, command: None } => {
                let address = address(&url, status).map_err(|reason| self.wrong(KEY, reason))?;
                Ok(Ready::Http(address))
            }
            Raw { port: None, http: None, status: None, command: Some(command) } => {
                Ok(Ready::Command(self.command(KEY, command)?))
            }
            _ => Err(self.wrong(KEY, format!("is not one way of being ready; {RIGHT}"))),
        }
    }

    fn restart(&mut self) -> Result<Restart, DeclarationError> {
        let Some(text) = self.text("restart")? else { return Ok(Restart::default()) };
        match text.as_str() {
            "never" => Ok(Restart::Never),
            "on-failure" => Ok(Restart::OnFailure),
            "always" => Ok(Restart::Always),
            other => {
                Err(self.wrong("restart", format!("is `{}`; take `never`, `on-failure` or `always`", shown(other))))
            }
        }
    }

    fn stop_signal(&mut self) -> Result<i32, DeclarationError> {
        let text = self.text("stop_signal")?.unwrap_or_else(|| "SIGTERM".into());
        let found = SIGNALS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        found.ok_or_else(|| {
            let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
            self.wrong("stop_signal", format!("is `{}`; take one of {}", shown(&text), names.join(", ")))
        })
    }
}

fn service(name: String, table: Table) -> Result<Service, DeclarationError> {
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let hint = match nearest(key, &KEYS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", KEYS.join(", ")),
        };
        return Err(DeclarationError::UnknownKey { service: name, key: shown(key), hint });
    }
    let mut keys = Keys { service: name.clone(), table };
    let command = keys.text("command")?.ok_or_else(|| DeclarationError::NoCommand { service: name.clone() })?;
    let command = keys.command("command", command)?;
    Ok(Service {
        name,
        command,
        ready: keys.ready()?,
        ready_within: keys.time("ready_within", READY_WITHIN, MAX_READY_WITHIN)?,
        restart: keys.restart()?,
        after: keys.after()?,
        environment: keys.environment()?,
        stop_signal: keys.stop_signal()?,
        stop_grace: keys.time("stop_grace", STOP_GRACE, MAX_STOP_GRACE)?,
    })
}

/// An address on the sandbox's loopback; the error says what is wrong with it.
fn address(url: &str, status: Option<u16>) -> Result<Address, String> {
    const RIGHT: &str = "take one such as `http://127.0.0.1:8080/health`";
    if url.len() > MAX_ADDRESS {
        return Err(format!("has an address of {} bytes; at most {MAX_ADDRESS} are possible", url.len()));
    }
    let wrong = || format!("has the address `{}`, which is not one of the sandbox itself; {RIGHT}", shown(url));
    let parsed: hyper::Uri = url.parse().map_err(|_| wrong())?;
    let authority = parsed.authority().ok_or_else(wrong)?;
    let is_own = matches!(authority.host(), "127.0.0.1" | "localhost" | "[::1]");
    if parsed.scheme_str() != Some("http") || !is_own || authority.as_str().contains('@') {
        return Err(wrong());
    }
    if let Some(status) = status.filter(|status| !(100..=599).contains(status)) {
        return Err(format!("has the status {status}; it must be between 100 and 599"));
    }
    let path = parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let port = authority.port_u16().unwrap_or(80);
    Ok(Address { authority: authority.as_str().to_owned(), port, path, status })
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= SHOWN && name.bytes().all(fits) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A piece of the file as it may be repeated to people.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Sorts services so that each follows those that it starts after; by name where that leaves a choice.
fn order(services: Vec<Service>) -> Result<Vec<Service>, DeclarationError> {
    let mut left = services;
    let mut ordered: Vec<Service> = Vec::new();
    while !left.is_empty() {
        let is_free =
            |service: &Service| service.after.iter().all(|name| ordered.iter().any(|before| before.name == *name));
        let Some(position) = left.iter().position(is_free) else { return Err(cycle(&left)) };
        ordered.push(left.remove(position));
    }
    Ok(ordered)
}

/// Names a cycle among services none of which can be first.
fn cycle(left: &[Service]) -> DeclarationError {
    let mut path: Vec<&str> = Vec::new();
    let mut current = left.first();
    while let Some(service) = current {
        if let Some(begin) = path.iter().position(|name| *name == service.name) {
            path.drain(..begin);
            path.push(&service.name);
            break;
        }
        path.push(&service.name);
        // Each that is left waits for another that is left.
        current = left.iter().find(|other| service.after.contains(&other.name));
    }
    DeclarationError::Cycle(path.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" after "))
}

#[cfg(test)]
#[path = "declaration_tests.rs"]
mod tests;
