//! Host ↔ guest: what the host asks PID 1 of a sandbox to do, and what it hears back.
//!
//! ```text
//! host                                guest (PID 1, socket on descriptor 3)
//!  Hello{version} ───────────────────►
//!  ◄─────────────── Welcome{calls}     the table of calls outlives the host
//!  Exec{call,…} + output socket ─────►
//!  ◄─────────────── Started{pid}
//!  ◄═════ bytes on the output socket   (a stream socket that the host made)
//!  ◄─────────────── Exited{call,…}     event, id 0, once the output is complete
//! ```

use serde::{Deserialize, Serialize};

use crate::Failure;

/// The descriptor on which the guest finds its control socket.
pub const CONTROL_FD: i32 = 3;

/// Where the workspace lies in every sandbox; relative paths in file requests start here.
pub const WORKSPACE: &str = "/workspace";

/// Where a sandbox finds the certificates that its operator trusts, if there are any: a read-only mount in the fresh `/dev`,
/// where no tree of a sandbox can have put a link.
pub const CERTIFICATES: &str = "/dev/ca-certificates.crt";

/// Longest call identifier, in bytes.
pub const MAX_CALL_ID: usize = 96;

/// Most bytes of output that a guest keeps, all calls together; also the largest [`Exec::output_limit`].
pub const MAX_OUTPUT: u64 = 64 * 1024 * 1024;

/// Largest content of a [`Request::Write`], in bytes.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Most entries of one [`Reply::Listing`].
pub const MAX_ENTRIES: u32 = 4096;

/// A message from the host to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToGuest {
    /// Epoch of the sending host; the guest refuses one lower than the highest it has seen.
    pub epoch: u64,
    /// Request number, chosen by the host, never 0; the reply carries the same one.
    pub id: u64,
    /// What is asked.
    pub body: Request,
}

/// What a host may ask of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First message of every host. Answered by [`Reply::Welcome`].
    Hello {
        /// Must equal [`crate::VERSION`].
        version: u16,
    },
    /// Runs a program. With one descriptor: the stream socket for its output (stdout and stderr merged in
    /// the order in which they were written). Answered by [`Reply::Started`]; [`Event::Exited`] follows.
    Exec(Exec),
    /// Streams a call's spool from `offset` over the stream socket in the message, then what still comes.
    /// Answered by [`Reply::Call`]. The end of output closes the socket; a call that has not ended
    /// sends [`Event::Exited`] when it does.
    Attach {
        /// The call.
        call: String,
        /// First byte wanted.
        offset: u64,
    },
    /// What is known of a call. Answered by [`Reply::Call`].
    Status {
        /// The call.
        call: String,
    },
    /// Ends a call: SIGTERM to every process that descends from it, SIGKILL after `grace_ms` until none is
    /// left. Answered by [`Reply::Done`] at once; [`Event::Exited`] follows. Of a call that has ended, what it left
    /// in the background is ended, and no event follows.
    Stop {
        /// The call.
        call: String,
        /// Time between the two signals, in milliseconds.
        grace_ms: u32,
    },
    /// Sends a signal to the main process of a call. Answered by [`Reply::Done`].
    Signal {
        /// The call.
        call: String,
        /// Signal number.
        signal: i32,
    },
    /// Drops an ended call and its spool; what it left in the background goes on. Answered by [`Reply::Done`].
    Forget {
        /// The call.
        call: String,
    },
    /// Opens a regular file of the workspace for reading. Answered by [`Reply::Opened`] with the descriptor.
    Open {
        /// Path in the workspace, relative to it or absolute within it.
        path: String,
    },
    /// Replaces or makes a regular file atomically (temporary file, sync, rename). With one descriptor: a
    /// memfd of the host that holds the new content. Answered by [`Reply::Done`].
    Write {
        /// Path in the workspace.
        path: String,
        /// Permission bits for a new file, nothing above 0o777; an existing file keeps its own.
        mode: u32,
    },
    /// Lists a directory of the workspace, names sorted. Answered by [`Reply::Listing`].
    List {
        /// Path in the workspace; empty for the workspace itself.
        path: String,
        /// The most entries to return; never more than [`MAX_ENTRIES`], nor than fit one message.
        max: u32,
    },
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Identifier chosen by the host; a second exec with it is refused with [`crate::FailureKind::Exists`].
    pub call: String,
    /// Program (searched in `PATH` of `env` when it holds no slash) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Wall time after which the call is ended, in milliseconds; 0 means no limit.
    pub timeout_ms: u64,
    /// Output bytes after which the call is ended, at most [`MAX_OUTPUT`].
    pub output_limit: u64,
}

/// A message from the guest to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromGuest {
    /// Epoch of the request that this answers; for events, the highest seen.
    pub epoch: u64,
    /// Number of the request that this answers; 0 for an event.
    pub id: u64,
    /// The answer or event.
    pub body: Message,
}

/// What a guest sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Reply(Result<Reply, Failure>),
    /// Something happened.
    Event(Event),
}

/// Answers to requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome {
        /// Version of the guest.
        version: u16,
        /// Number of calls in its table; read each with [`Request::Status`] by the ids the host knows.
        calls: u32,
    },
    /// To [`Request::Exec`].
    Started {
        /// Process number inside the sandbox.
        pid: i32,
    },
    /// To [`Request::Attach`] and [`Request::Status`].
    Call(Call),
    /// To [`Request::Open`], with the descriptor.
    Opened {
        /// Size in bytes at the time of opening.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// To [`Request::List`].
    Listing {
        /// Entries, sorted by name.
        entries: Vec<Entry>,
        /// Whether more entries exist than were returned.
        truncated: bool,
    },
    /// Done, nothing to say.
    Done,
}

/// Things that happen without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A call ended and all of its output was handed to the attached socket, if there is one.
    Exited(Call),
}

/// A row of the guest's table of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its identifier.
    pub call: String,
    /// Bytes of output so far.
    pub output: u64,
    /// `None` while it runs.
    pub exit: Option<Exit>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why it ended.
    pub cause: ExitCause,
    /// Exit status of the main process, 128 + signal where a signal ended it.
    pub status: i32,
    /// Wall time from start to the end of the main process, in microseconds.
    pub wall_us: u64,
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// Its main process ended by itself.
    Exited,
    /// [`Request::Stop`].
    Stopped,
    /// The time limit.
    Timeout,
    /// The output limit.
    OutputLimit,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// File name, lossily decoded where it is not UTF-8.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes, 0 for everything but regular files.
    pub size: u64,
}

/// Kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, never followed.
    Symlink,
    /// Anything else.
    Other,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{FailureKind, socket};

    fn text() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[ -~é]{0,40}").unwrap()
    }

    fn exec() -> impl Strategy<Value = Exec> {
        let pairs = proptest::collection::vec((text(), text()), 0..4);
        (text(), proptest::collection::vec(text(), 0..5), pairs, text(), any::<u64>(), any::<u64>()).prop_map(
            |(call, argv, env, cwd, timeout_ms, output_limit)| Exec { call, argv, env, cwd, timeout_ms, output_limit },
        )
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            any::<u16>().prop_map(|version| Request::Hello { version }),
            exec().prop_map(Request::Exec),
            (text(), any::<u64>()).prop_map(|(call, offset)| Request::Attach { call, offset }),
            text().prop_map(|call| Request::Status { call }),
            (text(), any::<u32>()).prop_map(|(call, grace_ms)| Request::Stop { call, grace_ms }),
            (text(), any::<i32>()).prop_map(|(call, signal)| Request::Signal { call, signal }),
            text().prop_map(|call| Request::Forget { call }),
            text().prop_map(|path| Request::Open { path }),
            (text(), any::<u32>()).prop_map(|(path, mode)| Request::Write { path, mode }),
            (text(), any::<u32>()).prop_map(|(path, max)| Request::List { path, max }),
        ]
    }

    fn call() -> impl Strategy<Value = Call> {
        let cause = prop_oneof![
            Just(ExitCause::Exited),
            Just(ExitCause::Stopped),
            Just(ExitCause::Timeout),
            Just(ExitCause::OutputLimit)
        ];
        let exit =
            (cause, any::<i32>(), any::<u64>()).prop_map(|(cause, status, wall_us)| Exit { cause, status, wall_us });
        (text(), any::<u64>(), proptest::option::of(exit)).prop_map(|(call, output, exit)| Call { call, output, exit })
    }

    fn message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Directory),
            Just(EntryKind::Symlink),
            Just(EntryKind::Other)
        ];
        let entry = (text(), kind, any::<u64>()).prop_map(|(name, kind, size)| Entry { name, kind, size });
        let reply = prop_oneof![
            (any::<u16>(), any::<u32>()).prop_map(|(version, calls)| Reply::Welcome { version, calls }),
            any::<i32>().prop_map(|pid| Reply::Started { pid }),
            call().prop_map(Reply::Call),
            (any::<u64>(), any::<u32>()).prop_map(|(size, mode)| Reply::Opened { size, mode }),
            (proptest::collection::vec(entry, 0..6), any::<bool>())
                .prop_map(|(entries, truncated)| Reply::Listing { entries, truncated }),
            Just(Reply::Done),
        ];
        let failure = (text(), any::<i32>(), text()).prop_map(|(op, errno, detail)| Failure {
            kind: FailureKind::Outside,
            op,
            errno,
            detail,
        });
        prop_oneof![
            reply.prop_map(|reply| Message::Reply(Ok(reply))),
            failure.prop_map(|failure| Message::Reply(Err(failure))),
            call().prop_map(|call| Message::Event(Event::Exited(call))),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_round_trip(epoch: u64, id: u64, body in request()) {
            let sent = ToGuest { epoch, id, body };
            let bytes = socket::encode(&sent).unwrap();
            prop_assert_eq!(postcard::from_bytes::<ToGuest>(&bytes).unwrap(), sent);
        }

        #[test]
        fn messages_survive_the_round_trip(epoch: u64, id: u64, body in message()) {
            let sent = FromGuest { epoch, id, body };
            let bytes = socket::encode(&sent).unwrap();
            prop_assert_eq!(postcard::from_bytes::<FromGuest>(&bytes).unwrap(), sent);
        }

        #[test]
        fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = postcard::from_bytes::<ToGuest>(&bytes);
            let _ = postcard::from_bytes::<FromGuest>(&bytes);
        }
    }

    #[test]
    fn the_first_bytes_of_a_hello_never_change() {
        // A guest of any version must be able to refuse a host of any other version.
        let hello = ToGuest { epoch: 3, id: 1, body: Request::Hello { version: 1 } };
        assert_eq!(socket::encode(&hello).unwrap(), [3, 1, 0, 1]);
    }
}
