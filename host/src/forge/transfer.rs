//! One git process behind one HTTP request: the body streams in, the answer streams out, nothing is kept whole.
//!
//! ```text
//!  request body ──feed──► input ┐                        ┌ output ──► response body ──► client
//!                               └ git, in its sandbox ───┘                │ dropped when the client goes
//!  supervisor task: waits for the end, or ends git on ◄── deadline, limit, ◄┘
//!  then settles (what did the push change?), then lets the response end
//! ```
//!
//! Owns the life of that process. Does not know what git is asked.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::running::{Ended, Exit, GitError, RunningGit};

/// Most bytes of an answer in memory at once.
const PIECE: usize = 32 * 1024;

/// Why a transfer did not go to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// What git wrote could not be read.
    #[error("the connection to git failed")]
    Io(#[from] io::Error),
    /// Git could not be started, or was lost.
    #[error("cannot run git")]
    Run(#[source] GitError),
    /// Git ended with an error and said nothing to the client.
    #[error("git failed with {status}: {stderr}")]
    Git {
        /// How it ended.
        status: Exit,
        /// The end of its error output.
        stderr: String,
    },
    /// The client sent too much.
    #[error("the request is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The client stopped sending in the middle.
    #[error("the client sent nothing for {idle:?}")]
    Stalled {
        /// The limit.
        idle: Duration,
    },
    /// The client stopped taking what git says.
    #[error("the client took nothing of the answer for {idle:?}")]
    Untaken {
        /// The limit.
        idle: Duration,
    },
    /// The request broke off, or its compression is broken.
    #[error("the request could not be read")]
    Request(#[source] axum::Error),
    /// It took too long.
    #[error("the transfer took longer than {deadline:?}")]
    Deadline {
        /// The limit.
        deadline: Duration,
    },
    /// The client went away.
    #[error("the client went away")]
    Abandoned,
    /// The host is stopping.
    #[error("the host is stopping")]
    Stopping,
}

/// What a request sends to git.
pub(super) struct Input {
    /// What was read already.
    pub(super) head: Vec<u8>,
    /// What follows.
    pub(super) rest: BodyDataStream,
    /// Most bytes of both.
    pub(super) limit: u64,
    /// Longest time between two pieces.
    pub(super) idle: Duration,
}

/// A transfer about to begin.
pub(super) struct Transfer {
    /// Git's input and output.
    pub(super) stream: UnixStream,
    /// Git.
    pub(super) git: RunningGit,
    /// What it reads; nothing where absent.
    pub(super) input: Option<Input>,
    /// Time for all of it.
    pub(super) deadline: Duration,
    /// Time that a piece of the answer may lie there before the client takes the next one.
    pub(super) idle: Duration,
    /// Its place among the requests of its router.
    pub(super) place: OwnedSemaphorePermit,
    /// Done once git has ended, however it ended, and before the response ends.
    pub(super) settle: BoxFuture<'static, ()>,
}

impl Transfer {
    /// Hands git its input. Returns the body of the answer as soon as there is a first piece of it, so that an early failure can
    /// still become a status.
    pub(super) async fn start(self) -> Result<Body, TransferError> {
        let stop = CancellationToken::new();
        let Self { stream, git, input, deadline, idle, place, settle } = self;
        let (output, input_end) = stream.into_split();
        let (input, stopped) = ((input, input_end), stop.clone());
        let (given, taken) = watch::channel(None);
        let supervisor = tokio::spawn(async move {
            let ended = supervise(git, input, (deadline, idle), stopped, taken).await;
            settle.await;
            drop(place);
            ended
        });
        let buffer = BytesMut::new();
        let answer = Answer { output, buffer, given, spoke: false, supervisor, _stop: stop.drop_guard() };
        match answer.next().await? {
            None => Ok(Body::empty()),
            Some((first, answer)) => {
                let rest = futures::stream::try_unfold(answer, |answer| async move {
                    let next = answer.next().await;
                    next.inspect_err(|error| tracing::warn!(%error, "a git transfer broke off"))
                });
                Ok(Body::from_stream(futures::stream::once(async { Ok(first) }).chain(rest)))
            }
        }
    }
}

/// Git's answer on its way. Dropping it ends git.
struct Answer {
    output: OwnedReadHalf,
    buffer: BytesMut,
    /// Since when a piece was handed over and no other asked for.
    given: watch::Sender<Option<Instant>>,
    spoke: bool,
    supervisor: JoinHandle<Result<(), TransferError>>,
    _stop: DropGuard,
}

impl Answer {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, TransferError> {
        self.given.send_replace(None);
        self.buffer.reserve(PIECE);
        let read = match self.output.read_buf(&mut self.buffer).await {
            // Git ended without reading everything; its status says whether that was right.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        if read > 0 {
            self.spoke = true;
            self.given.send_replace(Some(Instant::now()));
            return Ok(Some((self.buffer.split().freeze(), self)));
        }
        match self.supervisor.await.unwrap_or(Err(TransferError::Stopping)) {
            // What git said is for the client to judge. It fails harmlessly too, such as at the end of the first round
            // of a shallow fetch.
            Err(TransferError::Git { status, stderr }) if self.spoke => {
                tracing::debug!(%status, stderr, "git answered and then failed");
                Ok(None)
            }
            // An answer that was cut short must not look whole: an error breaks the connection.
            ended => ended.map(|()| None),
        }
    }
}

async fn supervise(
    mut git: RunningGit,
    (input, end): (Option<Input>, OwnedWriteHalf),
    (deadline, idle): (Duration, Duration),
    stopped: CancellationToken,
    given: watch::Receiver<Option<Instant>>,
) -> Result<(), TransferError> {
    let work = async {
        let fed = async {
            match input {
                Some(input) => feed(end, input).await,
                // Closing it is the end of git's input.
                None => {
                    drop(end);
                    Ok(())
                }
            }
        };
        let ended = async { git.wait().await.map_err(TransferError::Run) };
        let ((), ended) = tokio::try_join!(fed, ended)?;
        Ok(ended)
    };
    let result = tokio::select! {
        biased;
        result = work => result,
        () = stopped.cancelled() => Err(TransferError::Abandoned),
        () = tokio::time::sleep(deadline) => Err(TransferError::Deadline { deadline }),
        () = untaken(given, idle) => Err(TransferError::Untaken { idle }),
    };
    match result {
        Ok(Ended { exit, .. }) if exit.success() => Ok(()),
        Ok(Ended { exit, stderr }) => Err(TransferError::Git { status: exit, stderr }),
        Err(error) => {
            git.end().await;
            Err(error)
        }
    }
}

/// Waits until a piece of the answer has been with the client for so long without its asking for another.
async fn untaken(mut given: watch::Receiver<Option<Instant>>, idle: Duration) {
    loop {
        let since = *given.borrow_and_update();
        let over = async {
            match since {
                Some(since) => tokio::time::sleep_until(since + idle).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = given.changed() => match changed {
                Ok(()) => {}
                // The client is gone, which ends the transfer by another way.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Hands the request to git. Where git stops reading first, the rest is taken and dropped, so that the client comes to
/// read why.
async fn feed(stdin: OwnedWriteHalf, input: Input) -> Result<(), TransferError> {
    let Input { head, mut rest, limit, idle } = input;
    let mut stdin = Some(stdin);
    let mut total = 0;
    let mut piece = Bytes::from(head);
    loop {
        total += piece.len() as u64;
        if total > limit {
            return Err(TransferError::TooLarge { limit });
        }
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&piece).await.is_err()
        {
            stdin = None;
        }
        piece = match timeout(idle, rest.next()).await {
            Err(_) => return Err(TransferError::Stalled { idle }),
            Ok(None) => return Ok(()),
            Ok(Some(next)) => next.map_err(TransferError::Request)?,
        };
    }
}
