//! A host for tests of the guest: the protocol by hand, so that a test can also say what no client would.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ostler_wire::guest::{Call, Event, Exec, FromGuest, Message, Overflow, Reply, Request, Stdio, ToGuest};
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, VERSION};
use rustix::event::PollFlags;

use crate::support::{PATIENCE, wait_for};

/// One host, talking over a duplicate of the control socket.
pub struct Host {
    pub socket: OwnedFd,
    pub epoch: u64,
    last: u64,
    /// Events that came while an answer was awaited.
    events: Vec<Call>,
}

/// An answer and the descriptor that came with it.
pub type Answer = (Result<Reply, Failure>, Option<OwnedFd>);

impl Host {
    /// Says hello.
    pub fn connect(control: &OwnedFd, epoch: u64) -> Self {
        let mut host = Self::silent(control, epoch);
        match host.ask(Request::Hello { version: VERSION }) {
            Ok(Reply::Welcome { version: VERSION, .. }) => host,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// A host that has not said anything.
    pub fn silent(control: &OwnedFd, epoch: u64) -> Self {
        Self { socket: control.try_clone().unwrap(), epoch, last: 0, events: Vec::new() }
    }

    /// Sends a request and gives its number.
    pub fn send(&mut self, body: Request, descriptor: Option<BorrowedFd<'_>>) -> u64 {
        self.last += 1;
        let message = ToGuest { epoch: self.epoch, id: self.last, body };
        while let Err(error) = socket::send(self.socket.as_fd(), &message, descriptor) {
            assert!(matches!(error, SocketError::NotReady), "send failed: {error:?}");
            assert!(wait_for(self.socket.as_fd(), PollFlags::OUT, PATIENCE), "the guest reads nothing");
        }
        self.last
    }

    /// The next message of this host's epoch.
    pub fn receive(&mut self) -> (FromGuest, Option<OwnedFd>) {
        loop {
            match socket::receive::<FromGuest>(self.socket.as_fd()) {
                Ok((message, descriptor)) if message.epoch == self.epoch => return (message, descriptor),
                Ok(_) => {}
                Err(SocketError::NotReady) => {
                    assert!(wait_for(self.socket.as_fd(), PollFlags::IN, PATIENCE), "the guest says nothing");
                }
                Err(error) => panic!("receive failed: {error:?}"),
            }
        }
    }

    /// The answer to a request.
    pub fn answer(&mut self, id: u64) -> Answer {
        loop {
            match self.receive() {
                (FromGuest { id: found, body: Message::Reply(result), .. }, descriptor) if found == id => {
                    return (result, descriptor);
                }
                (FromGuest { id: 0, body: Message::Event(Event::Exited(call)), .. }, None) => self.events.push(call),
                (other, _) => panic!("unexpected message {other:?}"),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, body: Request) -> Result<Reply, Failure> {
        self.ask_with(body, None).0
    }

    /// [`Self::ask`] with a descriptor.
    pub fn ask_with(&mut self, body: Request, descriptor: Option<BorrowedFd<'_>>) -> Answer {
        let id = self.send(body, descriptor);
        self.answer(id)
    }

    /// Starts a program and gives its output.
    pub fn exec(&mut self, exec: Exec) -> Result<UnixStream, Failure> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.ask_with(Request::Exec(exec), Some(theirs.as_fd())).0 {
            Ok(Reply::Started { pid }) if pid > 0 => Ok(ours),
            Err(failure) => Err(failure),
            other => panic!("unexpected answer {other:?}"),
        }
    }

    /// Starts a shell script.
    pub fn shell(&mut self, call: &str, script: &str) -> UnixStream {
        self.exec(shell(call, script)).unwrap()
    }

    /// Follows a call from an offset.
    pub fn attach(&mut self, call: &str, offset: u64) -> (Call, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.ask_with(Request::Attach { call: call.into(), offset }, Some(theirs.as_fd())).0 {
            Ok(Reply::Call(row)) => (row, ours),
            other => panic!("unexpected answer {other:?}"),
        }
    }

    /// Waits for the end of a call.
    pub fn exited(&mut self, call: &str) -> Call {
        if let Some(index) = self.events.iter().position(|row| row.call == call) {
            return self.events.remove(index);
        }
        loop {
            match self.receive().0 {
                FromGuest { id: 0, body: Message::Event(Event::Exited(row)), .. } if row.call == call => return row,
                FromGuest { id: 0, body: Message::Event(Event::Exited(row)), .. } => self.events.push(row),
                other => panic!("unexpected message {other:?}"),
            }
        }
    }

    /// What is known of a call.
    pub fn status(&mut self, call: &str) -> Call {
        match self.ask(Request::Status { call: call.into() }) {
            Ok(Reply::Call(row)) => row,
            other => panic!("unexpected answer {other:?}"),
        }
    }
}

/// A shell script as a request.
pub fn shell(call: &str, script: &str) -> Exec {
    Exec {
        call: call.into(),
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        timeout_ms: 0,
        output_limit: 1024 * 1024,
        overflow: Overflow::End,
        stdio: Stdio::Merged,
        label: String::new(),
    }
}

/// Everything up to the end of the output.
pub fn all(mut output: UnixStream) -> String {
    let mut text = Vec::new();
    output.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The next line of the output.
pub fn line(output: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}
