//! Connections from the host to what listens on a sandbox's loopback: previews, editors, desktops.
//!
//! A socket that the launcher made inside the sandbox's network namespace can reach that namespace and nothing else, so there
//! is no address that could be confused with one of the host's. A few are kept ready.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as BlockingStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ostler_sandbox::client::{Launcher, LauncherClientError};
use ostler_sandbox::wire::launcher::Family;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use super::Workspace;

/// Sockets that are made at once; what is not needed now is kept.
const BATCH: u32 = 8;

/// Longest that a connection within a machine may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The launcher made no socket.
    #[error("cannot make a socket in the sandbox")]
    Mint(#[source] LauncherClientError),
    /// Nothing listens.
    #[error("nothing listens on port {port} of the sandbox")]
    Refused {
        /// The port.
        port: u16,
    },
    /// The connection failed otherwise.
    #[error("cannot connect to port {port} of the sandbox")]
    Failed {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes sockets inside one sandbox.
pub(super) struct Sockets {
    launcher: Launcher,
    sandbox: String,
    ready: Mutex<Vec<OwnedFd>>,
}

impl Sockets {
    pub(super) fn new(launcher: Launcher, sandbox: String) -> Self {
        Self { launcher, sandbox, ready: Mutex::default() }
    }

    /// A socket for IPv4, one of those that are ready where there is one.
    async fn take(&self) -> Result<OwnedFd, ConnectError> {
        // Held while more are made, so that whoever comes meanwhile takes one of those and no more are kept than a batch.
        let mut ready = self.ready.lock().await;
        if ready.is_empty() {
            *ready = self.launcher.mint(&self.sandbox, Family::V4, BATCH).await.map_err(ConnectError::Mint)?;
        }
        ready.pop().ok_or_else(|| self.none())
    }

    /// A socket for IPv6; rarely needed, so none is kept.
    async fn take_v6(&self) -> Result<OwnedFd, ConnectError> {
        let made = self.launcher.mint(&self.sandbox, Family::V6, 1).await.map_err(ConnectError::Mint)?;
        made.into_iter().next().ok_or_else(|| self.none())
    }

    fn none(&self) -> ConnectError {
        ConnectError::Mint(LauncherClientError::Unexpected { request: format!("make sockets in {}", self.sandbox) })
    }
}

impl Workspace {
    /// Connects to a port on the sandbox's loopback: IPv4 first, then IPv6.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] where nothing listens on it in either family.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, ConnectError> {
        let first = dial(self.sockets.take().await?, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        match first {
            Err(ConnectError::Refused { .. }) => {
                dial(self.sockets.take_v6().await?, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await
            }
            other => other,
        }
    }
}

async fn dial(socket: OwnedFd, address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let port = address.port();
    let connect = TcpSocket::from_std_stream(BlockingStream::from(socket)).connect(address);
    let connected = tokio::time::timeout(CONNECT_TIME, connect).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(ConnectError::Refused { port }),
        Err(source) => Err(ConnectError::Failed { port, source }),
    }
}
