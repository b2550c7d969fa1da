//! What people do in a session's sandbox beside the agent: ports, background commands, terminals, connections.
//!
//! Everything that a person starts there passes [`Sessions::admit`], the one place at which it becomes an event before it
//! happens. What is started belongs to the sandbox and ends with it; nothing here keeps state.

use std::sync::Arc;

use ostler_protocol::event::Person;
use ostler_protocol::processes::{
    CreateTerminal, MAX_COMMAND, MAX_PIECE, MAX_PROCESS_NAME, MAX_WINDOW, PortList, PortView, ProcessList,
    ProcessOutput, ProcessView, ServiceView, StartProcess, TerminalList, TerminalView, Window, is_process_name,
};
use ostler_protocol::{ErrorCode, EventBody, SessionId};
use ostler_sandbox::client::GuestError;
use ostler_sandbox::wire::{FailureKind, guest};
use tokio::net::TcpStream;

use super::Sessions;
use super::error::SessionError;
use super::mailbox::Message;
use super::registry::check_person;
use crate::workspace::{
    self, Background, Begun, ConnectError, ServiceError, ServiceStatus, Terminal, Workspace, chain,
};

/// For whom people stop and start services.
const PERSON: &str = "a person";

impl Sessions {
    /// The TCP ports on which something listens in the sandbox.
    pub async fn ports(&self, session: SessionId) -> Result<PortList, SessionError> {
        let (found, truncated) = self.sandbox(session).await?.ports().await.map_err(guest_error)?;
        let view = |port: guest::Port| PortView {
            port: port.port,
            address: port.address.to_string(),
            process: port.process.map(|(_, name)| name),
        };
        Ok(PortList { ports: found.into_iter().map(view).collect(), truncated })
    }

    /// Connects to a port on the sandbox's loopback.
    pub async fn connect(&self, session: SessionId, port: u16) -> Result<TcpStream, SessionError> {
        let connected = self.sandbox(session).await?.connect(port).await;
        connected.map_err(|error| {
            let words = SessionError::new(ErrorCode::SandboxFailed, chain(&error));
            match &error {
                ConnectError::Refused { .. } => words.with_hint("`ostler ports SESSION` lists what listens"),
                _ => words,
            }
            .with_source(error)
        })
    }

    /// Starts a command in the background.
    pub async fn start_process(&self, session: SessionId, asked: StartProcess) -> Result<ProcessView, SessionError> {
        if asked.command.trim().is_empty() || asked.command.contains('\0') {
            return Err(bad("the command is empty, or holds a zero byte", "send a command line for bash"));
        }
        if asked.command.len() > MAX_COMMAND {
            let words = format!("the command has {} bytes, the limit is {MAX_COMMAND}", asked.command.len());
            return Err(SessionError::new(ErrorCode::TooLarge, words).with_hint("put it into a file and run that"));
        }
        let name = named(asked.name, "cmd")?;
        let sandbox = self.sandbox(session).await?;
        let by = self.person(session, asked.author).await?;
        if sandbox.is_service(&name) {
            let words = format!("`{name}` is a service of the repository");
            let hint = "`ostler process restart SESSION NAME` starts it; or choose another name";
            return Err(SessionError::new(ErrorCode::Conflict, words).with_hint(hint));
        }
        if sandbox
            .background()
            .await
            .map_err(guest_error)?
            .iter()
            .any(|found| found.name == name && !found.makes_room())
        {
            return Err(taken("background command", &name));
        }
        let (process, command) = (name.clone(), asked.command.clone());
        self.admit(session, EventBody::ProcessStarted { process, command, by: by.clone() }).await?;
        match sandbox.start_background(&name, &asked.command, &by).await.map_err(guest_error)? {
            Begun::Now => self.process(&sandbox, &name).await,
            Begun::Before => Err(taken("background command", &name)),
        }
    }

    /// The declared services and the commands in the background.
    pub async fn processes(&self, session: SessionId) -> Result<ProcessList, SessionError> {
        let sandbox = self.sandbox(session).await?;
        Ok(ProcessList { processes: listed(&sandbox).await? })
    }

    /// A piece of what one wrote; the last of it where no offset is given.
    pub async fn process_output(
        &self,
        session: SessionId,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<ProcessOutput, SessionError> {
        let sandbox = self.sandbox(session).await?;
        let found = sandbox.background_output(name, offset, max.min(MAX_PIECE)).await;
        let mut found = found.map_err(|error| named_error("background command", name, error))?;
        let is_last = found.row.exit.is_some() && found.offset + found.bytes.len() as u64 == found.row.output;
        if !is_last {
            let begun = begun_character(&found.bytes);
            found.bytes.truncate(found.bytes.len() - begun);
        }
        Ok(ProcessOutput {
            offset: found.offset,
            next_offset: found.offset + found.bytes.len() as u64,
            written: found.row.output,
            output: String::from_utf8_lossy(&found.bytes).into_owned(),
            exit_status: found.row.exit.map(|exit| exit.status),
        })
    }

    /// Ends one with everything that it started. One that has ended is answered as it is.
    pub async fn stop_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError> {
        let sandbox = self.sandbox(session).await?;
        if sandbox.is_service(name) {
            sandbox.stop_service(name, PERSON).await.map_err(service_error)?;
        } else {
            sandbox.stop_background(name).await.map_err(|error| named_error("background command", name, error))?;
        }
        self.process(&sandbox, name).await
    }

    /// Starts a declared service, again where it runs.
    pub async fn restart_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError> {
        let sandbox = self.sandbox(session).await?;
        sandbox.restart_service(name, PERSON).await.map_err(service_error)?;
        self.process(&sandbox, name).await
    }

    /// Opens a terminal.
    pub async fn open_terminal(&self, session: SessionId, asked: CreateTerminal) -> Result<TerminalView, SessionError> {
        let window = window(asked.window)?;
        let name = named(asked.name, "term")?;
        let sandbox = self.sandbox(session).await?;
        let by = self.person(session, asked.author).await?;
        if sandbox.terminals().await.map_err(guest_error)?.iter().any(|found| found.name == name) {
            return Err(taken("terminal", &name));
        }
        self.admit(session, EventBody::TerminalOpened { terminal: name.clone(), by: by.clone() }).await?;
        match sandbox.open_terminal(&name, window, &by).await {
            Ok(()) => Ok(TerminalView { name, exit_status: None, age_ms: 0 }),
            Err(GuestError::Refused { failure, .. }) if failure.kind == FailureKind::Exists => {
                Err(taken("terminal", &name))
            }
            Err(error) => Err(guest_error(error)),
        }
    }

    /// The terminals.
    pub async fn terminals(&self, session: SessionId) -> Result<TerminalList, SessionError> {
        let found = self.sandbox(session).await?.terminals().await.map_err(guest_error)?;
        Ok(TerminalList { terminals: found.into_iter().map(terminal_view).collect() })
    }

    /// Looks at a terminal.
    pub async fn view_terminal(&self, session: SessionId, name: &str) -> Result<workspace::TerminalView, SessionError> {
        self.sandbox(session).await?.view_terminal(name).await.map_err(|error| named_error("terminal", name, error))
    }

    /// Sets the size of a terminal.
    pub async fn resize_terminal(&self, session: SessionId, name: &str, size: Window) -> Result<(), SessionError> {
        let window = window(size)?;
        self.sandbox(session)
            .await?
            .resize_terminal(name, window)
            .await
            .map_err(|error| named_error("terminal", name, error))
    }

    /// Ends a terminal with everything in it.
    pub async fn close_terminal(&self, session: SessionId, name: &str) -> Result<TerminalView, SessionError> {
        let closed = self.sandbox(session).await?.close_terminal(name).await;
        closed.map(terminal_view).map_err(|error| named_error("terminal", name, error))
    }

    /// Notes that a port can be seen under an address of its own.
    pub async fn preview_opened(&self, session: SessionId, preview: String, port: u16) -> Result<(), SessionError> {
        self.admit(session, EventBody::PreviewOpened { preview, port }).await
    }

    /// Makes an event of something that a person is about to do; nothing is done where this fails. The place for a hook.
    async fn admit(&self, session: SessionId, body: EventBody) -> Result<(), SessionError> {
        self.registry.ask(session, |durable| Message::Note { body, durable }).await
    }

    /// The living sandbox of a session.
    async fn sandbox(&self, session: SessionId) -> Result<Arc<Workspace>, SessionError> {
        self.registry.borrow(session).await?.ok_or_else(|| {
            SessionError::new(ErrorCode::Conflict, format!("session {session} has no sandbox that runs"))
                .with_hint("give it a prompt: its sandbox starts with it")
        })
    }

    async fn person(&self, session: SessionId, author: Option<Person>) -> Result<Person, SessionError> {
        match author {
            Some(author) => check_person(author),
            None => Ok(self.get(session).await?.author),
        }
    }

    async fn process(&self, sandbox: &Workspace, name: &str) -> Result<ProcessView, SessionError> {
        let found = listed(sandbox).await?.into_iter().find(|found| found.name == name);
        found.ok_or_else(|| missing("background command", name))
    }
}

/// Bytes at the end that begin a character whose rest may still come; 0 where there is nothing before them.
fn begun_character(bytes: &[u8]) -> usize {
    let rest = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_begun = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    if is_begun && rest.len() < bytes.len() { rest.len() } else { 0 }
}

fn process_view(found: Background) -> ProcessView {
    ProcessView {
        name: found.name,
        command: found.command,
        exit_status: found.row.exit.map(|exit| exit.status),
        age_ms: super::job::milliseconds(found.age),
        written: found.row.output,
        kept_from: found.row.first,
        service: None,
    }
}

/// The services with their last starts, then the commands.
async fn listed(sandbox: &Workspace) -> Result<Vec<ProcessView>, SessionError> {
    let starts = sandbox.service_starts().await.map_err(guest_error)?;
    let with_start = |service: ServiceStatus| {
        let ServiceStatus { name, command, state, why, restarts } = service;
        let start = starts.iter().find(|start| start.name == name).cloned().map(process_view);
        let unstarted =
            ProcessView { name, command, exit_status: None, age_ms: 0, written: 0, kept_from: 0, service: None };
        ProcessView { service: Some(ServiceView { state, why, restarts }), ..start.unwrap_or(unstarted) }
    };
    let services = sandbox.services().into_iter().map(with_start);
    let commands = sandbox.background().await.map_err(guest_error)?;
    Ok(services.chain(commands.into_iter().map(process_view)).collect())
}

fn terminal_view(found: Terminal) -> TerminalView {
    let age_ms = super::job::milliseconds(found.age);
    TerminalView { name: found.name, exit_status: found.exit_status, age_ms }
}

/// The name that was asked for, or a new one.
fn named(asked: Option<String>, kind: &str) -> Result<String, SessionError> {
    let Some(name) = asked else {
        let random = ulid::Ulid::generate().to_string().to_ascii_lowercase();
        return Ok(format!("{kind}-{}", &random[random.len().saturating_sub(6)..]));
    };
    if is_process_name(&name) {
        return Ok(name);
    }
    let shown: String = name.chars().take(MAX_PROCESS_NAME).flat_map(char::escape_debug).collect();
    let hint = format!("a name has 1 to {MAX_PROCESS_NAME} lowercase letters, digits and hyphens");
    Err(SessionError::new(ErrorCode::BadRequest, format!("`{shown}` is not a name")).with_hint(hint))
}

fn window(size: Window) -> Result<guest::Window, SessionError> {
    let fits = |value: u16| (1..=MAX_WINDOW).contains(&value);
    if fits(size.rows) && fits(size.columns) {
        return Ok(guest::Window { rows: size.rows, columns: size.columns });
    }
    let words = format!("a terminal of {} lines with {} columns", size.rows, size.columns);
    Err(bad(&format!("{words} is not possible"), &format!("each must be 1 to {MAX_WINDOW}")))
}

fn bad(words: &str, hint: &str) -> SessionError {
    SessionError::new(ErrorCode::BadRequest, words).with_hint(hint)
}

fn taken(kind: &str, name: &str) -> SessionError {
    SessionError::new(ErrorCode::Conflict, format!("there is a {kind} `{name}` already"))
        .with_hint("choose another name")
}

/// The error of something that was named by a person.
fn named_error(kind: &str, name: &str, error: GuestError) -> SessionError {
    match &error {
        GuestError::Refused { failure, .. } if failure.kind == FailureKind::NotFound => missing(kind, name),
        _ => guest_error(error),
    }
}

fn service_error(error: ServiceError) -> SessionError {
    let (code, hint) = match &error {
        ServiceError::Unknown(_) => (ErrorCode::NotFound, "`ostler process list SESSION` lists the services"),
        ServiceError::Unsupervised => {
            (ErrorCode::Conflict, "the sandbox has ended or is about to; its next one starts them")
        }
        ServiceError::Late { .. } | ServiceError::NotStarted { .. } => {
            (ErrorCode::SandboxFailed, "what it writes may say why")
        }
    };
    SessionError::new(code, error.to_string()).with_hint(hint)
}

fn missing(kind: &str, name: &str) -> SessionError {
    let shown: String = name.chars().take(MAX_PROCESS_NAME).flat_map(char::escape_debug).collect();
    SessionError::new(ErrorCode::NotFound, format!("the sandbox knows no {kind} `{shown}`"))
}

fn guest_error(error: GuestError) -> SessionError {
    let code = match &error {
        GuestError::Refused { failure, .. } => match failure.kind {
            FailureKind::NotFound => ErrorCode::NotFound,
            FailureKind::Exists => ErrorCode::Conflict,
            FailureKind::Limit => ErrorCode::Overloaded,
            FailureKind::Invalid | FailureKind::Outside => ErrorCode::BadRequest,
            FailureKind::NoSpace | FailureKind::StaleEpoch | FailureKind::System => ErrorCode::SandboxFailed,
        },
        GuestError::Busy { .. } => ErrorCode::Overloaded,
        _ => ErrorCode::SandboxFailed,
    };
    SessionError::new(code, chain(&error)).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::begun_character;

    #[test]
    fn only_a_character_that_may_go_on_is_held_back() {
        let text = "aé€😀".as_bytes();
        let table = [(0, 0), (1, 0), (2, 1), (3, 0), (4, 1), (5, 2), (6, 0), (7, 1), (8, 2), (9, 3), (10, 0)];
        for (length, begun) in table {
            assert_eq!(begun_character(&text[..length]), begun, "{length}");
        }
        assert_eq!(begun_character(b"a\xff"), 0, "it is none");
        assert_eq!(begun_character(b"\xc3"), 0, "a piece is never empty for it");
    }
}
