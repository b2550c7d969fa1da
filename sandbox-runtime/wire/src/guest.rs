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

/// Longest call identifier, in bytes.
pub const MAX_CALL_ID: usize = 96;

/// Most bytes of output that a guest keeps, all calls together; also the largest [`Exec::output_limit`].
pub const MAX_OUTPUT: u64 = 64 * 1024 * 1024;

/// Least and largest [`Exec::output_limit`] with [`Overflow::DropHead`], and the most of all such calls together, in bytes.
pub const MIN_TAIL: u64 = 4 * 1024;
/// See [`MIN_TAIL`].
pub const MAX_TAIL: u64 = 1024 * 1024;
/// See [`MIN_TAIL`].
pub const MAX_TAILS: u64 = 32 * 1024 * 1024;

/// Longest [`Exec::label`], in bytes.
pub const MAX_LABEL: usize = 256;

/// Most bytes of one [`Reply::Output`].
pub const MAX_PIECE: u32 = 48 * 1024;

/// Most ports of one [`Reply::Ports`].
pub const MAX_PORTS: usize = 256;

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
    /// Runs a program. With one descriptor: a stream socket of the host, whose use [`Exec::stdio`] tells. Answered by
    /// [`Reply::Started`]; [`Event::Exited`] follows.
    Exec(Exec),
    /// Streams a call's spool from `offset` over the stream socket in the message, then what still comes.
    /// Answered by [`Reply::Call`]; where [`Call::first`] is higher than `offset`, what came before it is lost and the
    /// stream begins there. The end of output closes the socket; a call that has not ended
    /// sends [`Event::Exited`] when it does. What the host writes into the socket is typed into a terminal.
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
    /// Sends a signal to the main process of a call; of a terminal, to the processes in its foreground. Answered by
    /// [`Reply::Done`].
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
    /// Sets the size of a terminal; its foreground hears of it (`SIGWINCH`). Answered by [`Reply::Done`].
    Resize {
        /// The call.
        call: String,
        /// The new size.
        window: Window,
    },
    /// Reads a piece of what is kept of a call's output, without following it. Answered by [`Reply::Output`].
    Read {
        /// The call.
        call: String,
        /// First byte wanted.
        offset: u64,
        /// Most bytes wanted; never more than [`MAX_PIECE`] are sent.
        max: u32,
    },
    /// Lists the calls whose identifiers begin with a prefix, oldest first. Answered by [`Reply::Calls`].
    Calls {
        /// The prefix; empty for all calls.
        prefix: String,
    },
    /// Lists the TCP ports on which something in the sandbox listens. Answered by [`Reply::Ports`].
    Ports,
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
    /// Output bytes that are kept: at most [`MAX_OUTPUT`], or [`MAX_TAIL`] where only the tail is kept.
    pub output_limit: u64,
    /// What happens to a call that writes more.
    pub overflow: Overflow,
    /// What the program's standard streams are.
    pub stdio: Stdio,
    /// Words for people, given back in [`Listed::label`]; at most [`MAX_LABEL`] bytes.
    pub label: String,
}

/// What happens where there is more output than [`Exec::output_limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// The call is ended, its output kept from the start.
    End,
    /// The call goes on and the oldest output is dropped, but never what somebody who is attached has not got yet: then the
    /// program waits.
    DropHead,
}

/// The standard streams of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// No input. Stdout and stderr are kept in the order of writing and sent over the host's socket.
    Merged,
    /// The host's socket itself is stdin and stdout: what the host writes is read by the program, shutting the host's end down
    /// for writing is the end of input, and stdout is not kept. Stderr is kept: [`Request::Attach`] gives it. Once the
    /// host's end is closed altogether, the call is stopped.
    Piped,
    /// A terminal of this size, with the program as leader of its session. What is printed is kept and sent over the host's
    /// socket, what the host writes there is typed.
    Terminal(Window),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
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
    /// To [`Request::Read`].
    Output {
        /// The call as it is now.
        row: Call,
        /// Position of the first of the bytes: higher than was asked for where what came before is lost.
        offset: u64,
        /// The bytes; none at the end of what is there.
        bytes: Vec<u8>,
    },
    /// To [`Request::Calls`].
    Calls {
        /// The calls, oldest first.
        calls: Vec<Listed>,
        /// Whether there are more than fit one message.
        truncated: bool,
    },
    /// To [`Request::Ports`].
    Ports {
        /// By port, then by address.
        ports: Vec<Port>,
        /// Whether there are more than [`MAX_PORTS`].
        truncated: bool,
    },
}

/// A call in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its row.
    pub row: Call,
    /// [`Exec::label`].
    pub label: String,
    /// Time since it was started, in milliseconds.
    pub age_ms: u64,
}

/// A TCP port on which something listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// The address that it is bound to; unspecified for all of its family.
    pub address: std::net::IpAddr,
    /// Whose it is, where that can be told: the number of a process in the sandbox and its name.
    pub process: Option<(i32, String)>,
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
    /// Position of the first byte of output that is kept.
    pub first: u64,
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

    fn window() -> impl Strategy<Value = Window> {
        (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| Window { rows, columns })
    }

    fn exec() -> impl Strategy<Value = Exec> {
        let pairs = proptest::collection::vec((text(), text()), 0..4);
        let overflow = prop_oneof![Just(Overflow::End), Just(Overflow::DropHead)];
        let stdio = prop_oneof![Just(Stdio::Merged), Just(Stdio::Piped), window().prop_map(Stdio::Terminal)];
        let words = (text(), proptest::collection::vec(text(), 0..5), pairs, text(), text());
        (words, any::<u64>(), any::<u64>(), overflow, stdio).prop_map(
            |((call, argv, env, cwd, label), timeout_ms, output_limit, overflow, stdio)| Exec {
                call,
                argv,
                env,
                cwd,
                timeout_ms,
                output_limit,
                overflow,
                stdio,
                label,
            },
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
            (text(), window()).prop_map(|(call, window)| Request::Resize { call, window }),
            (text(), any::<u64>(), any::<u32>()).prop_map(|(call, offset, max)| Request::Read { call, offset, max }),
            text().prop_map(|prefix| Request::Calls { prefix }),
            Just(Request::Ports),
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
        (text(), any::<u64>(), any::<u64>(), proptest::option::of(exit)).prop_map(|(call, output, first, exit)| Call {
            call,
            output,
            first,
            exit,
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Directory),
            Just(EntryKind::Symlink),
            Just(EntryKind::Other)
        ];
        let entry = (text(), kind, any::<u64>()).prop_map(|(name, kind, size)| Entry { name, kind, size });
        let listed = (call(), text(), any::<u64>()).prop_map(|(row, label, age_ms)| Listed { row, label, age_ms });
        let port = (any::<u16>(), any::<std::net::IpAddr>(), proptest::option::of((any::<i32>(), text())))
            .prop_map(|(port, address, process)| Port { port, address, process });
        let reply = prop_oneof![
            (any::<u16>(), any::<u32>()).prop_map(|(version, calls)| Reply::Welcome { version, calls }),
            any::<i32>().prop_map(|pid| Reply::Started { pid }),
            call().prop_map(Reply::Call),
            (any::<u64>(), any::<u32>()).prop_map(|(size, mode)| Reply::Opened { size, mode }),
            (proptest::collection::vec(entry, 0..6), any::<bool>())
                .prop_map(|(entries, truncated)| Reply::Listing { entries, truncated }),
            Just(Reply::Done),
            (proptest::collection::vec(listed, 0..4), any::<bool>())
                .prop_map(|(calls, truncated)| Reply::Calls { calls, truncated }),
            (call(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(row, offset, bytes)| Reply::Output { row, offset, bytes }),
            (proptest::collection::vec(port, 0..4), any::<bool>())
                .prop_map(|(ports, truncated)| Reply::Ports { ports, truncated }),
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
        let hello = ToGuest { epoch: 3, id: 1, body: Request::Hello { version: 2 } };
        assert_eq!(socket::encode(&hello).unwrap(), [3, 1, 0, 2]);
    }
}
