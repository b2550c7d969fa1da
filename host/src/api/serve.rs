//! The listener: accepts connections, bounds what one may cost, ends them when the host stops.
//!
//! Does not know routes. A client that sends its headers slowly is closed after [`HEADER_TIME`]; one that does not
//! read what it asked for after [`UNREAD_TIME`], by the kernel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; further ones wait in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 1024;

/// Time for the headers of a request, also of the next one on a kept connection.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Time after which a connection whose data is not taken is closed.
const UNREAD_TIME: Duration = Duration::from_secs(120);

/// Pause after the process ran out of descriptors, so that others can be given back.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What can go wrong while serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener is broken.
    #[error("could not accept connections")]
    Accept(#[source] io::Error),
}

/// Serves `app` on the listeners until `stopping` is cancelled, then waits at most `drain` for requests under way.
pub async fn serve(
    (listener, twin): (TcpListener, Option<TcpListener>),
    app: Router,
    stopping: CancellationToken,
    drain: Duration,
) -> Result<(), ServeError> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = accept(&listener, twin.as_ref(), &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let connection = connection(stream, app.clone(), stopping.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            // The peer went away before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if exhausted(&error) => {
                tracing::warn!(%error, "no descriptor for a new connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => return Err(ServeError::Accept(error)),
        }
    }
    drop((listener, twin));
    let drained = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut at the end of the host");
        connections.shutdown().await;
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    twin: Option<&TcpListener>,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let by_twin = async {
        match twin {
            Some(twin) => twin.accept().await,
            None => std::future::pending().await,
        }
    };
    let (stream, _) = tokio::select! {
        accepted = listener.accept() => accepted?,
        accepted = by_twin => accepted?,
    };
    // Frames of a stream are small and should be seen at once.
    stream.set_nodelay(true)?;
    let unread = u32::try_from(UNREAD_TIME.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, unread)?;
    Ok((stream, slot))
}

fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

async fn connection(stream: TcpStream, app: Router, stopping: CancellationToken) {
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
