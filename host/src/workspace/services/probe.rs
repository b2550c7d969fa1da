//! Finding out when a service is ready, from inside its sandbox.
//!
//! Ports are reached over sockets that the launcher made in the sandbox's network namespace, commands run in the guest as every
//! other. Each look has a deadline, what is read of an answer a bound.

use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use ostler_protocol::event::Person;
use ostler_sandbox::client::GuestError;
use ostler_sandbox::wire::guest::{Exec, ExitCause, MIN_TAIL, Overflow, Stdio, WORKSPACE};

use super::declaration::{Address, Ready, Service};
use super::run::environment_of;
use crate::workspace::{Workspace, chain};

/// Pauses between two looks: they grow, so that a slow start costs little.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Time that a service must have run where nothing says when it is ready: one that cannot start has ended by then.
const SETTLING: Duration = Duration::from_millis(250);

/// Longest that one look may take.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// Most bytes of the head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Waits until the service is ready; the error says what was seen last when its time was over.
pub(super) async fn wait(workspace: &Workspace, service: &Service, author: &Person) -> Result<(), String> {
    let mut seen = "it was not looked at".to_owned();
    let looks = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match tokio::time::timeout(LOOK_TIME, look(workspace, service, author)).await {
                Ok(Ok(())) => return,
                Ok(Err(why)) => seen = why,
                Err(_) => seen = format!("a look took more than {} s", LOOK_TIME.as_secs()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    let waited = tokio::time::timeout(service.ready_within, looks).await;
    let limit = crate::config::TimeSpan(service.ready_within);
    waited.map_err(|_| format!("it was not ready within {limit}: {seen}"))
}

async fn look(workspace: &Workspace, service: &Service, author: &Person) -> Result<(), String> {
    match &service.ready {
        Ready::Running => {
            tokio::time::sleep(SETTLING).await;
            Ok(())
        }
        Ready::Port(port) => workspace.connect(*port).await.map(drop).map_err(|error| chain(&error)),
        Ready::Http(address) => http(workspace, address).await,
        Ready::Command(command) => self::command(workspace, service, command, author).await,
    }
}

async fn http(workspace: &Workspace, address: &Address) -> Result<(), String> {
    let stream = workspace.connect(address.port).await.map_err(|error| chain(&error))?;
    let broke = |error: hyper::Error| format!("port {} did not answer properly: {}", address.port, chain(&error));
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broke)?;
    let path: Uri = address.path.parse().map_err(|_| "its path is not one".to_owned())?;
    let request = Request::get(path)
        .header(HOST, &address.authority)
        .header(USER_AGENT, "ostler")
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| chain(&error))?;
    // The body is of no interest: the connection is dropped with the head read.
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(broke)?,
        ended = connection => {
            let why = ended.err().map_or_else(|| "it hung up".to_owned(), |error| chain(&error));
            return Err(format!("port {} did not answer properly: {why}", address.port));
        }
    };
    let status = answer.status().as_u16();
    let counts = address.status.map_or((200..400).contains(&status), |wanted| wanted == status);
    if counts { Ok(()) } else { Err(format!("port {} answered with status {status}", address.port)) }
}

async fn command(workspace: &Workspace, service: &Service, command: &str, author: &Person) -> Result<(), String> {
    let call = format!("probe:{}:{}", service.name, ulid::Ulid::generate());
    let exec = Exec {
        call: call.clone(),
        argv: vec!["bash".into(), "-c".into(), command.into()],
        env: environment_of(service, author),
        cwd: WORKSPACE.into(),
        timeout_ms: u64::try_from(LOOK_TIME.as_millis()).unwrap_or(u64::MAX) / 2,
        output_limit: MIN_TAIL,
        overflow: Overflow::DropHead,
        stdio: Stdio::Merged,
        label: String::new(),
    };
    let failed = |error: GuestError| chain(&error);
    let mut running = workspace.guest.exec(exec).await.map_err(failed)?;
    // What it writes is of no interest, and must not hold it up.
    let _ = tokio::io::copy(&mut running.output, &mut tokio::io::sink()).await;
    let ended = running.exit().await.map_err(failed)?;
    // Kept only until here; an error is the link's, and shows at its next use.
    let _ = workspace.guest.forget(&call).await;
    match ended.exit {
        Some(exit) if exit.cause == ExitCause::Exited && exit.status == 0 => Ok(()),
        Some(exit) if exit.cause == ExitCause::Timeout => Err("the command of its readiness took too long".to_owned()),
        exit => Err(format!("the command of its readiness ended with status {}", exit.map_or(-1, |exit| exit.status))),
    }
}
