//! What a connection says first: TLS, plain HTTP, or something that nobody here understands.
//!
//! The greeting of TLS is read by rustls, strictly: what it does not accept is not passed on, so that nobody sees another
//! name in it than it does. Its outer name is what counts; an encrypted one inside cannot be seen by anybody on the way.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::egress::HostName;

/// First byte of a handshake of TLS. Source: RFC 8446, 5.1.
const HANDSHAKE: u8 = 0x16;

/// Most bytes of a greeting: real ones have 2 KiB at most, with keys against quantum computers and tickets.
const MOST: usize = 32 * 1024;

/// Longest method of HTTP: no registered one is longer (`UPDATEREDIRECTREF`).
const METHOD: usize = 17;

/// A stream in two directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes that it ends with a reset, where it can.
    fn reset_on_close(&self) {}
}

impl Duplex for TcpStream {
    fn reset_on_close(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a connection was closed without a reset");
        }
    }
}

impl Duplex for hyper_util::rt::TokioIo<hyper::upgrade::Upgraded> {}

/// A stream of which the first bytes were read already; they are read again.
pub(super) struct Heard {
    first: Vec<u8>,
    read: usize,
    pub(super) stream: Box<dyn Duplex>,
}

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// TLS, with the name that it is meant for.
    Tls(Option<HostName>),
    /// Plain HTTP, probably.
    Http,
    /// Nothing that can be decided; why.
    Unknown(&'static str),
}

impl Heard {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        Self { first: Vec::new(), read: 0, stream }
    }

    /// Listens until it is clear what is spoken, at most for `patience`.
    pub(super) async fn greeting(&mut self, patience: Duration) -> io::Result<Greeting> {
        let silent = "nothing was said in time; where the server speaks first, its port must be one of `tcp_ports`";
        timeout(patience, self.listen()).await.unwrap_or(Ok(Greeting::Unknown(silent)))
    }

    async fn listen(&mut self) -> io::Result<Greeting> {
        const UNCLEAR: &str = "it is neither TLS nor HTTP, so that nobody can tell what it is for";
        loop {
            if self.more().await? == 0 {
                return Ok(Greeting::Unknown("it was closed before it was clear what is spoken"));
            }
            if self.first[0] == HANDSHAKE {
                return self.hello().await;
            }
            // A method and a space.
            let letters = self.first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
            match self.first.get(letters) {
                None if letters <= METHOD => {}
                Some(b' ') if self.first.starts_with(b"PRI ") => {
                    return Ok(Greeting::Unknown("HTTP/2 without TLS is not spoken here"));
                }
                Some(b' ') if (1..=METHOD).contains(&letters) => return Ok(Greeting::Http),
                _ => return Ok(Greeting::Unknown(UNCLEAR)),
            }
        }
    }

    /// Reads the whole greeting of TLS, over as many records and reads as it takes.
    async fn hello(&mut self) -> io::Result<Greeting> {
        const WRONG: Greeting = Greeting::Unknown("its TLS greeting is malformed");
        let mut acceptor = Acceptor::default();
        let mut fed = 0;
        loop {
            let mut new = Cursor::new(&self.first[fed..]);
            while (new.position() as usize) < self.first.len() - fed {
                if acceptor.read_tls(&mut new).is_err() {
                    return Ok(WRONG);
                }
            }
            fed = self.first.len();
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    // An address in the place of a name is none.
                    let name = accepted.client_hello().server_name().map(str::parse);
                    return Ok(name.transpose().map_or(WRONG, Greeting::Tls));
                }
                Ok(None) if fed >= MOST => return Ok(Greeting::Unknown("its TLS greeting is too long")),
                Ok(None) => {}
                Err(_) => return Ok(WRONG),
            }
            if self.more().await? == 0 {
                return Ok(WRONG);
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece).await?;
        self.first.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read == self.first.len() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = buffer.remaining().min(self.first.len() - self.read);
        buffer.put_slice(&self.first[self.read..self.read + count]);
        self.read += count;
        if self.read == self.first.len() {
            (self.first, self.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
