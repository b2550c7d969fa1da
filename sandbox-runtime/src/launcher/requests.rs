//! What a connection says: hello first, requests from the host afterwards.

use std::os::fd::AsFd;
use std::time::Duration;

use ostler_wire::launcher::{FromLauncher, Message, Reply, Request, ToLauncher};
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind, VERSION};
use rustix::net::{SocketFlags, accept_with};

use super::link::{Caller, Link, MOST_CALLERS, MOST_DEPARTED};
use super::sandboxes::{Phase, Purpose, RequestKey};
use super::starting::check_id;
use super::state::{Launcher, log};
use crate::process;
use crate::step::failure;

/// Messages or connections that are worked off before everything else gets its turn.
const BATCH: usize = 32;

/// How far the epoch of a host may be beyond that of the last one. A host counts its starts; one that was taken over and says
/// more would leave no number to later ones.
const FURTHEST: u64 = 1 << 20;

impl Launcher {
    /// Takes whoever waits at the socket.
    pub(super) fn accept(&mut self) {
        for _ in 0..BATCH {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = accept_with(&self.listener.socket, flags) else { return };
            if self.callers.len() >= MOST_CALLERS {
                // The one that has been silent for longest makes room.
                self.callers.remove(0);
            }
            process::refuse_descriptors(&socket);
            match Caller::admit(socket, self.config.host_uid) {
                Some(caller) => self.callers.push(caller),
                None => log("refused a connection of another user"),
            }
        }
    }

    /// Reads the first message of everyone who has not said hello.
    pub(super) fn greet(&mut self) {
        for caller in std::mem::take(&mut self.callers) {
            match socket::receive::<ToLauncher>(caller.socket.as_fd()) {
                Ok((message, None)) => self.welcome(caller, &message),
                Ok((_, Some(_))) => log("a caller sent a descriptor"),
                Err(SocketError::NotReady) => self.callers.push(caller),
                Err(SocketError::Closed) => {}
                Err(error) => log(&format!("a caller broke the protocol: {error}")),
            }
        }
    }

    fn welcome(&mut self, caller: Caller, message: &ToLauncher) {
        self.departed.retain(|socket| process::unread(socket) > 0);
        if let Err(refused) = self.check_hello(message) {
            log(&format!("refused a host: {refused}"));
            // The highest epoch tells an honest host where to go on.
            let reply = FromLauncher { epoch: self.epoch, id: message.id, body: Message::Reply(Err(refused)) };
            // Whoever cannot take even this is gone.
            let _ = socket::send(caller.socket.as_fd(), &reply, None);
            return;
        }
        self.lose_host("a new one connected");
        self.epoch = message.epoch;
        self.links += 1;
        self.host = Some(Link::new(self.links, caller.socket));
        self.alone_since = None;
        let request = RequestKey { link: self.links, id: message.id, epoch: message.epoch };
        self.say_welcome(request);
    }

    fn say_welcome(&mut self, request: RequestKey) {
        let sandboxes = self.with_phase(|phase| matches!(phase, Phase::Living));
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.reply(request, Ok(Reply::Welcome { version: VERSION, pid, sandboxes }));
    }

    fn check_hello(&self, message: &ToLauncher) -> Result<(), Failure> {
        let Request::Hello { version } = message.body else {
            return Err(failure(FailureKind::Invalid, "hello", "the first message must be a hello"));
        };
        check_version(version)?;
        if self.departed.len() >= MOST_DEPARTED {
            let words = format!("{MOST_DEPARTED} earlier connections must be read to their end or closed first");
            return Err(failure(FailureKind::Limit, "hello", words));
        }
        let epoch = message.epoch;
        if epoch < self.epoch {
            let words = format!("epoch {epoch} is over: one of epoch {} was here", self.epoch);
            return Err(failure(FailureKind::StaleEpoch, "check epoch", words));
        }
        if epoch - self.epoch > FURTHEST {
            let words = format!("epoch {epoch} leaves no room for later hosts: the last one was {}", self.epoch);
            return Err(failure(FailureKind::Invalid, "check epoch", words));
        }
        Ok(())
    }

    /// A connection is of the epoch that its hello said, and of no other.
    fn check_epoch(&self, epoch: u64) -> Result<(), Failure> {
        if epoch == self.epoch {
            return Ok(());
        }
        let words = format!("epoch {epoch} is not that of this connection, {}", self.epoch);
        Err(failure(FailureKind::StaleEpoch, "check epoch", words))
    }

    /// Reads what the host has sent.
    pub(super) fn listen_to_host(&mut self) {
        for _ in 0..BATCH {
            let Some(host) = &self.host else { return };
            let link = host.number;
            match socket::receive::<ToLauncher>(host.socket.as_fd()) {
                Ok((message, None)) => self.handle(link, message),
                Ok((_, Some(_))) => self.lose_host("it sent a descriptor"),
                Err(SocketError::NotReady) => return,
                Err(error) => self.lose_host(&error.to_string()),
            }
        }
    }

    fn handle(&mut self, link: u64, message: ToLauncher) {
        let request = RequestKey { link, id: message.id, epoch: message.epoch };
        if let Err(refused) = self.check_epoch(message.epoch) {
            return self.reply(request, Err(refused));
        }
        match message.body {
            Request::Hello { version } => match check_version(version) {
                Ok(()) => self.say_welcome(request),
                Err(refused) => self.reply(request, Err(refused)),
            },
            Request::Create { sandbox, image, limits } => {
                let wait = Duration::from_millis(message.deadline_ms.into());
                self.create(request, sandbox, Purpose::Workspace(image), limits, wait);
            }
            Request::OpenRepository { sandbox, repository, access, limits } => {
                let wait = Duration::from_millis(message.deadline_ms.into());
                self.open_repository(request, sandbox, &repository, access, limits, wait);
            }
            Request::Reclaim { sandbox } => self.reclaim(request, &sandbox),
            Request::Destroy { sandbox, files } => self.destroy(request, &sandbox, files),
            Request::Shutdown => self.stop(Some(request)),
            Request::Mint { sandbox, family, count } => self.mint(request, &sandbox, family, count),
        }
    }

    fn reclaim(&mut self, request: RequestKey, id: &str) {
        if let Err(refused) = check_id(id) {
            return self.reply(request, Err(refused));
        }
        match self.sandboxes.get(id).map(|sandbox| &sandbox.phase) {
            Some(Phase::Living) => self.hand_over(request, id),
            Some(Phase::Starting { .. }) => {
                self.reply(
                    request,
                    Err(failure(FailureKind::Exists, "reclaim", format!("sandbox {id} is being made"))),
                );
            }
            Some(Phase::Ending(_)) | None => {
                self.reply(
                    request,
                    Err(failure(FailureKind::NotFound, "reclaim", format!("sandbox {id} does not live"))),
                );
            }
        }
    }
}

fn check_version(version: u16) -> Result<(), Failure> {
    if version == VERSION {
        return Ok(());
    }
    let words = format!("the host speaks version {version}, the launcher {VERSION}: stop the launcher and start again");
    Err(failure(FailureKind::Invalid, "hello", words))
}
