//! The one task that owns the socket to the launcher: sends requests, assembles answers, watches deadlines.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ostler_wire::FailureKind;
use ostler_wire::launcher::{DescriptorKind, Event, Files, FromLauncher, Message, Reply, Request, Sandbox, ToLauncher};
use ostler_wire::socket::{self, SocketError};
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Died, LauncherClientError, Opened, SLOW, Started};

/// Requests that may wait to be sent.
pub(super) const MOST_QUEUED: usize = 256;

/// Added to every deadline, so that the launcher's own words about a timeout arrive.
const SLACK: Duration = Duration::from_secs(2);

/// How long the late answer to a create that timed out is waited for.
const FORGET: Duration = Duration::from_secs(600);

/// A request on its way to the task.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) words: String,
    pub(super) request: Request,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<Result<Answer, LauncherClientError>>,
}

/// The final reply and the descriptors that came before it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) descriptors: Descriptors,
}

#[derive(Debug, Default)]
pub(super) struct Descriptors {
    control: Option<OwnedFd>,
    door_tcp: Option<OwnedFd>,
    door_dns: Option<OwnedFd>,
    door_dns_v6: Option<OwnedFd>,
    minted: Vec<OwnedFd>,
}

impl Answer {
    pub(super) fn started(self, words: &str) -> Result<Started, LauncherClientError> {
        let Descriptors {
            control: Some(control), door_tcp: Some(door_tcp), door_dns: Some(door_dns), door_dns_v6, ..
        } = self.descriptors
        else {
            return Err(LauncherClientError::Unexpected { request: words.to_owned() });
        };
        match self.reply {
            Reply::Ready(info) => Ok(Started { info, control, door_tcp, door_dns, door_dns_v6 }),
            _ => Err(LauncherClientError::Unexpected { request: words.to_owned() }),
        }
    }

    pub(super) fn ended(self, words: &str) -> Result<Option<String>, LauncherClientError> {
        match self.reply {
            Reply::Ended { died } => Ok(died),
            _ => Err(LauncherClientError::Unexpected { request: words.to_owned() }),
        }
    }

    pub(super) fn opened(self, words: &str) -> Result<Opened, LauncherClientError> {
        match (self.reply, self.descriptors.control) {
            (Reply::Ready(info), Some(control)) => Ok(Opened { info, control }),
            _ => Err(LauncherClientError::Unexpected { request: words.to_owned() }),
        }
    }

    pub(super) fn minted(self, words: &str, count: u32) -> Result<Vec<OwnedFd>, LauncherClientError> {
        match self.reply {
            Reply::Done if self.descriptors.minted.len() == count as usize => Ok(self.descriptors.minted),
            _ => Err(LauncherClientError::Unexpected { request: words.to_owned() }),
        }
    }

    pub(super) fn done(self, words: &str) -> Result<(), LauncherClientError> {
        match self.reply {
            Reply::Done => Ok(()),
            _ => Err(LauncherClientError::Unexpected { request: words.to_owned() }),
        }
    }
}

/// A request that was sent.
struct Sent {
    words: String,
    creates: bool,
    /// Its caller was told that it timed out.
    abandoned: bool,
    waited: Duration,
    until: Instant,
    descriptors: Descriptors,
    reply: oneshot::Sender<Result<Answer, LauncherClientError>>,
}

/// The owner of the socket.
pub(super) struct Task {
    socket: AsyncFd<OwnedFd>,
    epoch: u64,
    deaths: broadcast::Sender<Died>,
    last: u64,
    pending: HashMap<u64, Sent>,
    /// Sandboxes that were made for nobody, to be destroyed.
    orphans: Vec<Sandbox>,
}

impl Task {
    pub(super) fn new(socket: AsyncFd<OwnedFd>, epoch: u64, deaths: broadcast::Sender<Died>) -> Self {
        Self { socket, epoch, deaths, last: 0, pending: HashMap::new(), orphans: Vec::new() }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let why = loop {
            while let Some(orphan) = self.orphans.pop() {
                if let Err(why) = self.send(destroy_orphan(&orphan)).await {
                    return self.give_up(&why);
                }
            }
            let next = self.pending.values().map(|sent| sent.until).min();
            let timer = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => if let Err(why) = self.send(command).await { break why },
                    None => return,
                },
                received = receive(&self.socket) => match received {
                    Ok((message, descriptor)) => self.received(message, descriptor),
                    Err(error) => break error.to_string(),
                },
                () = timer => self.expire(),
            }
        };
        self.give_up(&why);
    }

    fn give_up(mut self, why: &str) {
        for (_, sent) in self.pending.drain() {
            // Whoever stopped waiting does not need to know.
            let _ = sent.reply.send(Err(LauncherClientError::gone(&sent.words, why)));
        }
    }

    /// Sends a request; `Err` says why the connection is of no use any more.
    async fn send(&mut self, command: Pending) -> Result<(), String> {
        let Pending { words, request, deadline, reply } = command;
        self.last += 1;
        let creates = matches!(request, Request::Create { .. } | Request::OpenRepository { .. });
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let message = ToLauncher { epoch: self.epoch, id: self.last, deadline_ms, body: request };
        let until = Instant::now() + deadline + SLACK;
        let sent = tokio::time::timeout_at(until, send(&self.socket, &message)).await;
        match sent {
            Ok(Ok(())) => {
                let sent = Sent {
                    words,
                    creates,
                    abandoned: false,
                    waited: deadline + SLACK,
                    until,
                    descriptors: Descriptors::default(),
                    reply,
                };
                self.pending.insert(self.last, sent);
                Ok(())
            }
            Ok(Err(error)) => {
                let why = error.to_string();
                // The caller may have stopped waiting.
                let _ = reply.send(Err(LauncherClientError::gone(&words, &why)));
                Err(why)
            }
            Err(_) => {
                let milliseconds = (deadline + SLACK).as_millis() as u64;
                let _ = reply.send(Err(LauncherClientError::Timeout { request: words, milliseconds }));
                Ok(())
            }
        }
    }

    fn received(&mut self, message: FromLauncher, descriptor: Option<OwnedFd>) {
        match message.body {
            Message::Event(Event::Died { sandbox, instance, why }) => {
                // Without a receiver nobody wants to know.
                let _ = self.deaths.send(Died { sandbox, instance, why });
            }
            Message::Reply(Ok(Reply::Descriptor(kind))) => {
                let Some(sent) = self.pending.get_mut(&message.id) else { return };
                match kind {
                    DescriptorKind::Control => sent.descriptors.control = descriptor,
                    DescriptorKind::DoorTcp => sent.descriptors.door_tcp = descriptor,
                    DescriptorKind::DoorDns => sent.descriptors.door_dns = descriptor,
                    DescriptorKind::DoorDnsV6 => sent.descriptors.door_dns_v6 = descriptor,
                    DescriptorKind::Minted => sent.descriptors.minted.extend(descriptor),
                }
            }
            Message::Reply(reply) => {
                let Some(sent) = self.pending.remove(&message.id) else { return };
                let Sent { words, creates, descriptors, reply: caller, .. } = sent;
                let answer = reply.map(|reply| Answer { reply, descriptors }).map_err(|source| match source.kind {
                    FailureKind::StaleEpoch => {
                        LauncherClientError::Stale { request: words, highest: message.epoch, source }
                    }
                    _ => LauncherClientError::Refused { request: words, source },
                });
                if let Err(Ok(Answer { reply: Reply::Ready(orphan), .. })) = caller.send(answer)
                    && creates
                {
                    self.orphans.push(orphan);
                }
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> = self.pending.iter().filter(|(_, sent)| sent.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(sent) = self.pending.remove(&id) else { continue };
            let Sent { words, creates, abandoned, waited, descriptors, reply, .. } = sent;
            let milliseconds = waited.as_millis() as u64;
            let _ = reply.send(Err(LauncherClientError::Timeout { request: words.clone(), milliseconds }));
            if creates && !abandoned {
                // Should it become ready after all, it is an orphan: the entry stays, with nobody waiting.
                let (reply, _) = oneshot::channel();
                let until = now + FORGET;
                self.pending.insert(id, Sent { words, creates, abandoned: true, waited, until, descriptors, reply });
            }
        }
    }
}

/// A destroy that nobody waits for.
fn destroy_orphan(orphan: &Sandbox) -> Pending {
    let files = if orphan.restored { Files::Keep } else { Files::Remove };
    let request = Request::Destroy { sandbox: orphan.sandbox.clone(), files };
    let (reply, _) = oneshot::channel();
    Pending { words: format!("destroy orphan {}", orphan.sandbox), request, deadline: SLOW, reply }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<(FromLauncher, Option<OwnedFd>), SocketError> {
    loop {
        let mut guard = socket.readable().await.map_err(|_| SocketError::Closed)?;
        match socket::receive(socket.get_ref().as_fd()) {
            Err(SocketError::NotReady) => guard.clear_ready(),
            received => return received,
        }
    }
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &ToLauncher) -> Result<(), SocketError> {
    loop {
        let mut guard = socket.writable().await.map_err(|_| SocketError::Closed)?;
        match socket::send(socket.get_ref().as_fd(), message, None) {
            Err(SocketError::NotReady) => guard.clear_ready(),
            sent => return sent,
        }
    }
}
