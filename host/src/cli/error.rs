//! What can go wrong on the command line: words, hint and exit code of each.

use std::io;
use std::path::PathBuf;

use ostler_protocol::{ApiError, ErrorCode, SessionId};
use ostler_sandbox::store::StoreError;
use ostler_sandbox::wire::Failure;

use super::discovery::{DiscoveryError, Location, NoToken};
use super::exit;
use crate::api::TokenError;
use crate::app::AppError;
use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// An error as a person at a terminal meets it.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The host answered with an error.
    #[error("{0}")]
    Api(ApiError),
    /// `up` could not start or go on.
    #[error(transparent)]
    Up(Box<AppError>),
    /// A command is not run as root, and what stands in for that is not there.
    #[error("`{command}` cannot do without root here: {source}")]
    WithoutRoot {
        /// The command.
        command: &'static str,
        /// What is in the way.
        #[source]
        source: Failure,
    },
    /// No host is there.
    #[error("the host is not running{detail}")]
    NotRunning {
        /// Where it was looked for, such as ` at http://…`.
        detail: String,
    },
    /// The runtime folder cannot be read.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The host's token cannot be read.
    #[error(transparent)]
    Token(TokenError),
    /// There is no token for this address.
    #[error("there is no token for {url}")]
    NoToken {
        /// The address.
        url: String,
    },
    /// Somebody else listens where the host of this machine said that it is.
    #[error("another user (uid {uid}) listens at {url}, where the host of this machine was: the token was not sent")]
    Stranger {
        /// The address.
        url: String,
        /// The user.
        uid: u32,
    },
    /// `OSTLER_TOKEN` is not a token.
    #[error("`OSTLER_TOKEN` is not a token: 64 hexadecimal digits were expected")]
    WrongToken,
    /// The address of the host cannot be used.
    #[error("`{url}` is not the address of a host: {why}")]
    WrongUrl {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The host could not be asked.
    #[error("could not {operation}")]
    Transport {
        /// What was asked, such as `list sessions`.
        operation: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// There is no terminal to show a shell on.
    #[error("a shell needs a terminal for its input and output")]
    NoTerminal,
    /// The connection that carries a shell failed.
    #[error("the shell was left: {why}")]
    Shell {
        /// Why.
        why: String,
        /// Whose sandbox.
        session: SessionId,
    },
    /// The host answered with something else than it should.
    #[error("could not understand the host's answer to `{operation}`: {why}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// What was wrong.
        why: String,
    },
    /// The connection dropped and did not come back.
    #[error("lost the connection to session {session} and could not get it back in {attempts} attempts")]
    ConnectionLost {
        /// Which session.
        session: SessionId,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<CliError>,
    },
    /// A turn ended without being done.
    #[error("{message}")]
    Turn {
        /// How, and why.
        message: String,
        /// Exit code.
        exit: u8,
        /// Which session.
        session: SessionId,
    },
    /// The person pressed Ctrl-C.
    #[error("detached from session {session}, the agent goes on")]
    Detached {
        /// Which session.
        session: SessionId,
    },
    /// No id begins so.
    #[error("there is no {kind} whose id begins with `{beginning}`")]
    NoneBegins {
        /// What was looked for, such as `session`.
        kind: &'static str,
        /// The command that lists them.
        list: &'static str,
        /// What was given.
        beginning: String,
    },
    /// Several ids begin so.
    #[error("`{beginning}` is the beginning of several: {found}")]
    SeveralBegin {
        /// What was looked for.
        kind: &'static str,
        /// What was given.
        beginning: String,
        /// Those that begin so, or the first of them.
        found: String,
    },
    /// A stream of events broke off: the host ended, or the way to it did.
    #[error("the connection to the host broke")]
    StreamBroken,
    /// Ctrl-C before there was a session.
    #[error("interrupted")]
    Interrupted,
    /// Something about the repository on disk.
    #[error("{message}")]
    Repository {
        /// What.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Logging could not begin.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Git itself failed.
    #[error("could not {operation}: git said: {said}")]
    Git {
        /// What was tried.
        operation: String,
        /// The last words of git.
        said: String,
    },
    /// Git could not be run.
    #[error("could not run git")]
    NoGit(#[source] io::Error),
    /// Nobody knows who asks.
    #[error("git does not know your {what}")]
    NoAuthor {
        /// `name` or `e-mail address`.
        what: &'static str,
        /// Key in git's configuration.
        key: &'static str,
    },
    /// The prompt could not be read from stdin.
    #[error("could not read the prompt from stdin")]
    Stdin(#[source] io::Error),
    /// A file given by the user cannot be used.
    #[error("could not {operation} {path}", path = path.display())]
    File {
        /// What was tried, such as `read`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no log yet.
    #[error("there is no log in {folder}", folder = folder.display())]
    NoLog {
        /// Which folder.
        folder: PathBuf,
    },
    /// The launcher could not start or go on.
    #[error("the launcher failed")]
    Launcher {
        /// Why.
        source: ostler_sandbox::launcher::LauncherError,
    },
    /// The image store failed.
    #[error("could not {operation}")]
    Images {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: StoreError,
    },
    /// A core module could not be made a component.
    #[error("could not make a component of {path}", path = path.display())]
    Componentize {
        /// Which module.
        path: PathBuf,
        /// Why.
        source: crate::plugins::ComponentizeError,
    },
    /// The terminal does not do what a screen needs.
    #[error("could not {operation}")]
    Terminal {
        /// What was tried, such as `draw on the terminal`.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `doctor` found something that must be repaired.
    #[error("{failed} {} failed", if *.failed == 1 { "check" } else { "checks" })]
    Unwell {
        /// How many checks failed.
        failed: usize,
    },
    /// The output was closed by its reader.
    #[error("the output was closed")]
    OutputClosed,
    /// Output could not be written.
    #[error("could not write the output")]
    Output(#[source] io::Error),
    /// The asynchronous runtime could not start.
    #[error("could not start the runtime of the command")]
    Runtime {
        /// Why.
        source: io::Error,
    },
}

impl CliError {
    /// Why there is no token for the host of this machine.
    pub(super) fn of_token(location: &Location, error: NoToken) -> Self {
        match error {
            NoToken::Unreadable(error) => Self::Token(error),
            NoToken::Stranger { uid } => Self::Stranger { url: location.url.clone(), uid },
        }
    }

    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Api(error) => error.code.exit_code(),
            Self::Up(error) => error.public.code.exit_code(),
            Self::NotRunning { .. }
            | Self::Stranger { .. }
            | Self::Transport { .. }
            | Self::StreamBroken
            | Self::ConnectionLost { .. } => exit::HOST,
            Self::NoToken { .. } | Self::WrongToken => ErrorCode::Unauthenticated.exit_code(),
            Self::WrongUrl { .. } | Self::Repository { .. } | Self::NoAuthor { .. } => exit::REQUEST,
            Self::Config(ConfigError::Wrong(_)) => exit::REQUEST,
            Self::NoLog { .. } => ErrorCode::NotFound.exit_code(),
            Self::NoneBegins { .. } => ErrorCode::NotFound.exit_code(),
            Self::SeveralBegin { .. } => exit::REQUEST,
            Self::Git { .. } | Self::Telemetry(TelemetryError::Filter { .. }) => exit::REQUEST,
            Self::Turn { exit, .. } => *exit,
            Self::Detached { .. } | Self::Interrupted => exit::INTERRUPTED,
            Self::OutputClosed => exit::OUTPUT_CLOSED,
            Self::Discovery(_) | Self::Token(_) | Self::WithoutRoot { .. } | Self::NoGit(_) | Self::Stdin(_) => {
                exit::ENVIRONMENT
            }
            Self::Config(ConfigError::Read { .. }) => exit::ENVIRONMENT,
            Self::File { .. } | Self::Output(_) | Self::Runtime { .. } => exit::ENVIRONMENT,
            Self::Terminal { .. } | Self::NoTerminal | Self::Unwell { .. } => exit::ENVIRONMENT,
            Self::Shell { .. } => exit::HOST,
            Self::Launcher { .. } | Self::Images { .. } | Self::Componentize { .. } => exit::ENVIRONMENT,
            Self::Answer { .. } | Self::Telemetry(_) | Self::Config(ConfigError::Table { .. }) => exit::INTERNAL,
        }
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Api(error) => return api_hint(error),
            Self::Up(error) => return error.public.hint.clone(),
            Self::WithoutRoot { .. } => {
                "`ostler doctor` looks at everything that is needed; as root it works without this".to_owned()
            }
            Self::NotRunning { .. } => "start it with `ostler up`".to_owned(),
            Self::Discovery(_) => "set `OSTLER_URL` and `OSTLER_TOKEN` to say where the host is".to_owned(),
            Self::Token(TokenError::Exposed { path, .. }) => {
                format!("others may have read it: remove {} and start the host again to get a new one", path.display())
            }
            Self::Token(TokenError::Read { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                "run the command as the user that started the host, or set `OSTLER_TOKEN`".to_owned()
            }
            Self::Token(_) => "set `OSTLER_TOKEN`, or start the host again".to_owned(),
            Self::Stranger { .. } => {
                "end what listens there, or start the host at another address with `ostler up --listen`".to_owned()
            }
            Self::NoToken { .. } | Self::WrongToken => {
                "set `OSTLER_TOKEN` to what the file `token` in the host's data folder holds".to_owned()
            }
            Self::WrongUrl { .. } => {
                "such as `http://127.0.0.1:7878`; for a host elsewhere use an SSH tunnel".to_owned()
            }
            Self::ConnectionLost { session, .. } => {
                format!("see what happened meanwhile with `ostler attach {session}`")
            }
            Self::Turn { session, .. } => {
                format!("see it with `ostler events {session}`, the changes with `ostler diff {session}`")
            }
            Self::Detached { session } => {
                format!("watch it with `ostler attach {session}`, stop it with `ostler stop {session}`")
            }
            Self::NoLog { .. } => {
                "a host writes one when it starts; say with `--data` where its folder is, if it is another".to_owned()
            }
            Self::File { operation: "read", source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as a user who may read it, such as with `sudo`".to_owned()
            }
            Self::NoneBegins { list, .. } => format!("`{list}` lists them"),
            Self::SeveralBegin { kind, .. } => format!("give more of the id of the {kind} that you mean"),
            Self::NoTerminal => "for a command without a terminal there is `ostler process start`".to_owned(),
            Self::Shell { session, .. } => {
                format!("the shell goes on: `ostler shell {session}` comes back to it")
            }
            Self::Images { source: StoreError::TooLarge { .. }, .. } => {
                "if you trust the archive, allow more with `--max-size`".to_owned()
            }
            Self::Images { source: StoreError::TooMany { .. }, .. } => {
                "if you trust the archive, allow more with `--max-entries`".to_owned()
            }
            Self::Images { source: StoreError::TooLong { .. }, .. } => {
                "if the machine is only slow, allow more with `--max-time`".to_owned()
            }
            Self::Images { source: StoreError::NotConfined { .. }, .. } => {
                "`ostler doctor` tells what this machine lacks".to_owned()
            }
            Self::Terminal { .. } => "watch in plain lines with `--plain`".to_owned(),
            Self::Repository { hint, .. } => hint.clone(),
            Self::Config(ConfigError::Read { source, .. }) => match source.kind() {
                io::ErrorKind::NotFound => {
                    "name another with `--config` or `OSTLER_CONFIG`, or write it; `ostler config show` prints one"
                        .into()
                }
                io::ErrorKind::PermissionDenied => "run it as a user who may read it, such as with `sudo`".to_owned(),
                _ => return None,
            },
            Self::NoGit(_) => "install git, such as with `apt install git`".to_owned(),
            Self::NoAuthor { key, .. } => format!(
                "git config --global {key} \"…\", or give `--name` and `--email`; commits and pull requests carry it"
            ),
            _ => return None,
        };
        Some(hint)
    }
}

fn api_hint(error: &ApiError) -> Option<String> {
    match (&error.hint, error.code, &error.request_id) {
        (Some(hint), _, _) => Some(hint.clone()),
        (None, ErrorCode::Internal, Some(id)) => Some(format!("look for `{id}` in the log of the host")),
        _ => None,
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        Self::Up(Box::new(error))
    }
}
