//! Finding out when a service is ready, from inside its sandbox.
//!
//! Ports are reached over sockets that the launcher made in the sandbox's network namespace, commands run in the guest as every
//! other. Each look has a deadline, what is read of an answer a bound.

use std::pin::pin;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use ostler_protocol::event::Person;
use ostler_sandbox::client::GuestError;
use ostler_sandbox::wire::guest::{Exec, ExitCause, MIN_TAIL, Overflow, Stdio, WORKSPACE};
use tokio::io::{AsyncRead, AsyncWrite};

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
    ask(stream, address).await
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, address: &Address) -> Result<(), String> {
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
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            // The end of a whole answer, which may come with its beginning, or of none: then that is its error.
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(broke)?;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What is said of a server that reads a request and then sends `pieces`, each by itself, and hangs up.
    async fn said(pieces: &'static [&'static str], status: Option<u16>) -> Result<(), String> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(async move {
            let mut request = [0; 4096];
            let length = theirs.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /health HTTP/1.1\r\n"));
            for piece in pieces {
                // Whoever has seen enough goes away.
                if theirs.write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let address = Address { port: 8000, authority: "127.0.0.1:8000".into(), path: "/health".into(), status };
        let said = ask(ours, &address).await;
        server.await.unwrap();
        said
    }

    #[tokio::test]
    async fn an_answer_counts_however_it_comes_and_whoever_hangs_up_with_it() {
        for whole in ["HTTP/1.0 200 OK\r\n\r\nhi", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"] {
            assert_eq!(said(Box::leak(Box::new([whole])), None).await, Ok(()), "{whole:?}");
        }
        assert_eq!(said(&["HTTP/1.1 200 OK\r\n", "content-length: 100\r\n\r\n", "only so much"], None).await, Ok(()));
        assert_eq!(said(&["HTTP/1.0 302 Found\r\n\r\n"], None).await, Ok(()));
        assert_eq!(said(&["HTTP/1.0 302 Found\r\n\r\n"], Some(302)).await, Ok(()));
    }

    #[tokio::test]
    async fn no_answer_or_another_one_says_why() {
        let refused = |said: Result<(), String>| said.unwrap_err();
        assert!(refused(said(&["HTTP/1.0 503 Busy\r\n\r\n"], None).await).contains("answered with status 503"));
        assert!(refused(said(&["HTTP/1.0 200 OK\r\n\r\n"], Some(204)).await).contains("answered with status 200"));
        for nothing in [&[][..], &["HTTP/1.1 200"][..], &["SSH-2.0-x\r\n"][..]] {
            let said = refused(said(nothing, None).await);
            assert!(said.starts_with("port 8000 did not answer properly: "), "{said}");
        }
    }
}
