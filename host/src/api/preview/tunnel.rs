//! A preview's connection after a switch of protocols (a WebSocket): bytes both ways, and an end to it.
//!
//! ```text
//!  both open ──one side closes──► the other one may finish, for a moment ──► end
//!      └──────no byte passes for a long time───────────────────────────────► end
//! ```
//!
//! Places for tunnels are few, and a client that went away without a word, or half of it, does not keep one.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes that are copied at once in each direction.
const PIECE: usize = 16 * 1024;

/// When a tunnel ends by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Most time without any byte in either direction. Development servers say little for long, and their pages connect again.
    pub(super) idle: Duration,
    /// Time for one side to finish after the other one has.
    pub(super) rest: Duration,
}

/// The patience of previews.
pub(super) const PATIENCE: Patience = Patience { idle: Duration::from_secs(30 * 60), rest: Duration::from_secs(10) };

/// Copies both ways until it ends.
pub(super) async fn join<A, B>(client: A, server: B, patience: Patience)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let last = Mutex::new(Instant::now());
    let up = copy(&mut from_client, &mut to_server, &last);
    let down = copy(&mut from_server, &mut to_client, &last);
    tokio::pin!(up, down);
    // Either side may go away at any time, and that is the end.
    tokio::select! {
        ended = &mut up => if ended.is_ok() { drop(timeout(patience.rest, down).await) },
        ended = &mut down => if ended.is_ok() { drop(timeout(patience.rest, up).await) },
        () = until_idle(&last, patience.idle) => {}
    }
}

/// Copies one way to its end, and passes that on.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    last: &Mutex<Instant>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..count]).await?;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

async fn until_idle(last: &Mutex<Instant>, idle: Duration) {
    loop {
        let end = *last.lock().unwrap_or_else(PoisonError::into_inner) + idle;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    async fn within<T>(work: impl Future<Output = T>) -> T {
        timeout(LONG, work).await.expect("it hangs")
    }

    /// A tunnel: its ends, and what becomes of it.
    fn tunnel(patience: Patience) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let ((client, inside), (server, outside)) = (duplex(1024), duplex(1024));
        (client, server, tokio::spawn(join(inside, outside, patience)))
    }

    #[tokio::test]
    async fn a_tunnel_whose_one_side_closed_ends_though_the_other_one_never_does() {
        for client_closes in [true, false] {
            let (client, server, ended) = tunnel(Patience { idle: LONG, rest: SHORT });
            let (mut closing, mut other) = if client_closes { (client, server) } else { (server, client) };
            closing.shutdown().await.unwrap();
            assert_eq!(within(other.read(&mut [0; 8])).await.unwrap(), 0, "it hears of the end");
            within(ended).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_comes_after_one_side_closed_still_arrives() {
        let (mut client, mut server, ended) = tunnel(Patience { idle: LONG, rest: LONG });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        within(server.read_to_string(&mut question)).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        within(ended).await.unwrap();
    }

    #[tokio::test]
    async fn a_tunnel_over_which_nothing_passes_ends() {
        let (_client, _server, ended) = tunnel(Patience { idle: SHORT, rest: LONG });
        within(ended).await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_does_not_keep_a_tunnel() {
        let (mut client, _server, ended) = tunnel(Patience { idle: SHORT, rest: LONG });
        let mut written = 0;
        while let Ok(count) = within(client.write(&[7; 256])).await {
            written += count;
        }
        assert!(written > 1024);
        within(ended).await.unwrap();
    }
}
