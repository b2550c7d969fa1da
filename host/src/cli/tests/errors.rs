//! Every error of the command line, as a person reads it.

use std::io;
use std::path::PathBuf;

use ostler_protocol::{ApiError, ErrorCode};
use ostler_sandbox::wire::{Failure, FailureKind};

use super::bench::printer;
use crate::api::TokenError;
use crate::app::AppError;
use crate::cli::CliError;
use crate::cli::discovery::DiscoveryError;
use crate::config::{ConfigError, Place, Problem};
use crate::telemetry::TelemetryError;

const SESSION: &str = "ses_01jd3kq4v5w6x7y8z9a0b1c2d3";

/// Kinds of errors, counted by [`kind`].
const KINDS: usize = 36;

/// The number of an error's kind. A new kind belongs here, into [`KINDS`], and into the list below.
fn kind(error: &CliError) -> usize {
    match error {
        CliError::Api(_) => 0,
        CliError::Up(_) => 1,
        CliError::WithoutRoot { .. } => 2,
        CliError::NotRunning { .. } => 3,
        CliError::Discovery(_) => 4,
        CliError::Token(_) => 5,
        CliError::NoToken { .. } => 6,
        CliError::WrongToken => 7,
        CliError::WrongUrl { .. } => 8,
        CliError::Transport { .. } => 9,
        CliError::Answer { .. } => 10,
        CliError::ConnectionLost { .. } => 11,
        CliError::Turn { .. } => 12,
        CliError::Detached { .. } => 13,
        CliError::StreamBroken => 14,
        CliError::Interrupted => 15,
        CliError::Repository { .. } => 16,
        CliError::Telemetry(_) => 17,
        CliError::Git { .. } => 18,
        CliError::NoGit(_) => 19,
        CliError::NoAuthor { .. } => 20,
        CliError::Stdin(_) => 21,
        CliError::File { .. } | CliError::Output(_) => 22,
        CliError::Launcher { .. } => 23,
        CliError::Images { .. } => 24,
        CliError::Componentize { .. } | CliError::Runtime { .. } => 25,
        CliError::Terminal { .. } => 26,
        CliError::OutputClosed => 27,
        CliError::NoneBegins { .. } => 28,
        CliError::SeveralBegin { .. } => 29,
        CliError::Config(_) => 30,
        CliError::NoLog { .. } => 31,
        CliError::Unwell { .. } => 32,
        CliError::NoTerminal => 33,
        CliError::Shell { .. } => 34,
        CliError::Stranger { .. } => 35,
    }
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(13)
}

fn of_the_host() -> Vec<CliError> {
    let hinted = ApiError::new(ErrorCode::NotFound, format!("there is no session `{SESSION}`"));
    let mut defect = ApiError::new(ErrorCode::Internal, "a defect of the host");
    defect.request_id = Some("req_7".into());
    vec![
        CliError::Api(hinted.with_hint("`ostler sessions` lists them")),
        CliError::Api(defect),
        CliError::Api(ApiError::new(ErrorCode::Denied, "a policy denied it")),
        CliError::Up(Box::new(AppError::new("git is missing", "install git").because(refused()))),
        CliError::NotRunning { detail: " at http://127.0.0.1:7878/".into() },
        CliError::Transport {
            operation: "list sessions",
            source: crate::http::plain().build().unwrap().get("nowhere").build().unwrap_err(),
        },
        CliError::Answer { operation: "list sessions", why: "status 200; is this an ostler host?".into() },
        CliError::ConnectionLost {
            session: SESSION.parse().unwrap(),
            attempts: 8,
            source: Box::new(CliError::StreamBroken),
        },
        CliError::StreamBroken,
        CliError::Turn { message: "the turn was stopped".into(), exit: 7, session: SESSION.parse().unwrap() },
        CliError::Detached { session: SESSION.parse().unwrap() },
        CliError::Shell { why: "the host is stopping".into(), session: SESSION.parse().unwrap() },
        CliError::NoTerminal,
    ]
}

fn typo() -> Problem {
    Problem {
        place: Place::Variable("OSTLER_LISTEN".into()),
        message: "`localhost` is not an address".into(),
        hint: Some("such as `127.0.0.1:7878`".into()),
    }
}

fn of_this_side() -> Vec<CliError> {
    let path = || PathBuf::from("/run/ostler/token");
    vec![
        CliError::WithoutRoot {
            command: "ostler images",
            source: Failure {
                kind: FailureKind::System,
                op: "find program".into(),
                errno: 0,
                detail: "`newuidmap` is missing; as root: apt-get install uidmap (shadow-utils on Fedora)".into(),
            },
        },
        CliError::Discovery(DiscoveryError::NoFolder),
        CliError::Token(TokenError::Read { path: path(), source: refused() }),
        CliError::Token(TokenError::Exposed { path: path(), mode: 0o644 }),
        CliError::NoToken { url: "http://127.0.0.1:7878/".into() },
        CliError::Stranger { url: "http://127.0.0.1:7878".into(), uid: 1000 },
        CliError::WrongToken,
        CliError::WrongUrl { url: "https://x".into(), why: "this ostler speaks plain HTTP only".into() },
        CliError::NoneBegins { kind: "session", list: "ostler sessions", beginning: "ses_02".into() },
        CliError::SeveralBegin { kind: "session", beginning: "ses_01".into(), found: "ses_01a, ses_01b".into() },
        CliError::Config(ConfigError::Read { path: "/etc/ostler/config.toml".into(), source: refused() }),
        CliError::Config(ConfigError::Wrong(vec![typo()])),
        CliError::Unwell { failed: 2 },
        CliError::NoLog { folder: "/var/lib/ostler/log".into() },
        CliError::Interrupted,
        CliError::Repository { message: "x is not a git repository".into(), hint: "go to one".into() },
        CliError::Telemetry(TelemetryError::Twice("it was".into())),
        CliError::Git { operation: "push".into(), said: "fatal: no".into() },
        CliError::NoGit(refused()),
        CliError::NoAuthor { what: "name", key: "user.name" },
        CliError::Stdin(refused()),
        CliError::File { operation: "read", path: path(), source: refused() },
        CliError::Launcher { source: ostler_sandbox::launcher::LauncherError::Threads },
        CliError::Images {
            operation: "import the image",
            source: ostler_sandbox::store::StoreError::Busy { path: "/var/lib/ostler/store".into() },
        },
        CliError::Componentize { path: "x.wasm".into(), source: crate::plugins::ComponentizeError::NotWasm },
        CliError::Output(refused()),
        CliError::Runtime { source: refused() },
        CliError::Terminal { operation: "draw on the terminal", source: refused() },
        CliError::OutputClosed,
    ]
}

#[test]
fn every_error_has_its_words_its_hint_and_its_exit_code() {
    let errors: Vec<CliError> = of_the_host().into_iter().chain(of_this_side()).collect();
    for number in 0..KINDS {
        assert!(errors.iter().any(|error| kind(error) == number), "no example of kind {number}");
    }
    let mut text = String::new();
    for error in errors {
        let (mut printer, out, err) = printer();
        printer.error(&error);
        assert_eq!(out.text(), "", "an error is no data");
        text.push_str(&format!("{}exit code {}\n\n", err.text(), error.exit_code()));
    }
    insta::assert_snapshot!(text);
}
