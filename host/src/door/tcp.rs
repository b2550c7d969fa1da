//! TCP through the door: every connection of the sandbox ends here and says by its original destination what it wants.
//!
//! Deny by default: a connection to a service behind the door is served, everything else is reset at once.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::hosts::DoorHosts;
use super::report::{Attempt, Reporter};

/// Largest head of a request, in bytes, and most of a body in memory at once.
const BUFFER: usize = 64 * 1024;

/// Most header lines of a request.
const HEADERS: usize = 64;

/// Wait after an accept that failed, such as for want of descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// How a redirected connection says where it was going.
pub type Destination = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddrV4> + Send + Sync>;

/// Reads `SO_ORIGINAL_DST`, which the kernel keeps for each redirected connection.
pub(super) fn original_destination(stream: &TcpStream) -> io::Result<SocketAddrV4> {
    let address = SockRef::from(stream).original_dst_v4()?;
    address.as_socket_ipv4().ok_or_else(|| io::Error::other("the original destination is no IPv4 address"))
}

/// Limits of the connections of one sandbox. [`Default`] gives the documented ones.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Connections at the same time (64).
    pub connections: usize,
    /// Time in which the head of a request must have come, counted from the connection or the request before it (30 s).
    pub idle: Duration,
    /// Longest life of a connection (20 minutes: more than the longest transfer of the forge).
    pub life: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self { connections: 64, idle: Duration::from_secs(30), life: Duration::from_secs(20 * 60) }
    }
}

/// Takes connections until dropped; then those that are being served end too.
pub(super) async fn serve(
    listener: TcpListener,
    hosts: Arc<DoorHosts>,
    reporter: Arc<Reporter>,
    limits: DoorLimits,
    destination: Destination,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a door cannot accept");
                sleep(AGAIN).await;
                continue;
            }
        };
        let refusal = match destination(&stream) {
            _ if connections.len() >= limits.connections => Attempt::TooMany,
            Err(_) => Attempt::ConnectUnknown,
            Ok(address) => match hosts.service(address) {
                Some(service) => {
                    reporter.served();
                    connections.spawn(timeout(limits.life, connection(stream, service, limits.idle)));
                    continue;
                }
                None => Attempt::Connect(address),
            },
        };
        reset(stream);
        reporter.refused(refusal);
    }
}

/// Closes a connection with a reset, so that the client fails at once and nothing of it stays.
fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection was closed without a reset");
    }
}

async fn connection(stream: TcpStream, service: Router, idle: Duration) {
    // Answers of git come in pieces that the client waits for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| service.clone().oneshot(request.map(Body::new)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(BUFFER).max_headers(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection through a door ended early");
    }
}
