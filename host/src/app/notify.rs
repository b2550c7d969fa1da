//! Tells a service manager how far the host is, by the protocol of sd_notify(3): one datagram a message.
//!
//! Owns nothing but the address. Nobody is told anything where `NOTIFY_SOCKET` is not set, and a manager that does not
//! listen is no reason to stop: it has its own deadline.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::env;

/// The service manager that started this process, if one wants to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Manager {
    socket: Option<OsString>,
}

impl Manager {
    /// The one that the environment names.
    pub(super) fn of_process() -> Self {
        Self::at(std::env::var_os(env::NOTIFY_SOCKET))
    }

    fn at(socket: Option<OsString>) -> Self {
        Self { socket: socket.filter(|socket| !socket.is_empty()) }
    }

    /// The host answers under this address.
    pub(super) fn ready(&self, url: &str) {
        self.tell(&format!("READY=1\nSTATUS=Ready at {url}"));
    }

    /// The host was told to end, and ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Ending every sandbox");
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, message) {
            tracing::warn!(%error, socket = %socket.display(), "the service manager could not be told");
        }
    }
}

fn send(socket: &OsStr, message: &str) -> std::io::Result<()> {
    // A first `@` stands for the NUL of a name without a file.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that reads nothing must not keep the host from serving.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_manager_hears_that_the_host_is_ready_and_that_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(Some(path.into_os_string()));
        manager.ready("http://127.0.0.1:7878");
        manager.stopping();
        assert_eq!(heard(&listener), "READY=1\nSTATUS=Ready at http://127.0.0.1:7878");
        assert_eq!(heard(&listener), "STOPPING=1\nSTATUS=Ending every sandbox");
    }

    #[test]
    fn a_socket_without_a_file_is_understood() {
        let name = format!("ostler-notify-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Manager::at(Some(format!("@{name}").into())).ready("x");
        assert_eq!(heard(&listener), "READY=1\nSTATUS=Ready at x");
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_one_that_is_gone_does_no_harm() {
        assert!(Manager::at(None).socket.is_none());
        assert!(Manager::at(Some(OsString::new())).socket.is_none(), "an empty variable is not set");
        Manager::at(Some("/nonexistent/notify".into())).ready("x");
    }
}
