//! A call that this host follows: its stream, and how it ends.

use ostler_wire::guest::Call;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Guest;
use super::error::GuestError;

/// A call that this host follows.
#[derive(Debug)]
pub struct Running {
    /// Its identifier.
    pub call: String,
    /// Process number inside the sandbox; `None` for a call that was attached to.
    pub pid: Option<i32>,
    /// Position of the first byte that [`Self::output`] gives: higher than was asked for where what came before is lost.
    pub first: u64,
    /// Its output; the end comes after the last byte. What is written into it reaches a program with piped streams, or is
    /// typed into a terminal.
    ///
    /// This is the host's end of a socket pair that the host made. Each end has its own open file, so nothing that the
    /// sandbox does to its end (such as making it block) changes how this one behaves.
    pub output: UnixStream,
    ended: Ended,
}

/// Waits for the end of a call.
#[derive(Debug)]
pub struct Ended {
    call: String,
    end: End,
    /// Keeps the link.
    guest: Guest,
}

#[derive(Debug)]
pub(super) enum End {
    Awaited(oneshot::Receiver<Call>),
    Known(Call),
}

impl Running {
    pub(super) fn new(call: String, output: UnixStream, end: End, guest: Guest) -> Self {
        Self { ended: Ended { call: call.clone(), end, guest }, call, pid: None, first: 0, output }
    }

    /// Takes note of the row that answered an attach.
    pub(super) fn attached(mut self, row: Call) -> Self {
        self.first = self.first.max(row.first);
        if row.exit.is_some() {
            self.ended.end = End::Known(row);
        }
        self
    }

    /// Waits for the end of the call; gives its row, with [`Call::exit`] set, each time it is called.
    ///
    /// The guest tells the end once it has handed over all output, so a call with much output ends only for someone who also
    /// reads [`Self::output`], or has dropped it. There is no deadline: a call has its own.
    ///
    /// # Errors
    /// [`GuestError::Link`] where the link is lost, [`GuestError::Replaced`] where somebody else attached.
    pub async fn exit(&mut self) -> Result<Call, GuestError> {
        self.ended.exit().await
    }

    /// The stream and the end apart, for who wants to read in one place and wait in another.
    #[must_use]
    pub fn split(self) -> (UnixStream, Ended) {
        (self.output, self.ended)
    }
}

impl Ended {
    /// See [`Running::exit`].
    ///
    /// # Errors
    /// As there.
    pub async fn exit(&mut self) -> Result<Call, GuestError> {
        if let End::Awaited(awaited) = &mut self.end {
            let ended = awaited.await.map_err(|_| self.unheard())?;
            self.end = End::Known(ended);
        }
        match &self.end {
            End::Known(call) => Ok(call.clone()),
            End::Awaited(_) => Err(self.unheard()),
        }
    }

    fn unheard(&self) -> GuestError {
        match self.guest.lost.borrow().clone() {
            Some(reason) => GuestError::Link(reason),
            None => GuestError::Replaced { call: self.call.clone() },
        }
    }
}
