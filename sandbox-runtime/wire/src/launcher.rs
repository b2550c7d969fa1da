//! Host ↔ launcher: the only way in which the unprivileged host gets a sandbox.
//!
//! Requests are typed and hold no path, uid or capability: a hijacked host is not root. The launcher
//! builds the OCI specification itself, leases the uid range itself, and keeps duplicates of every
//! sandbox's descriptors, so that a restarted host gets them again with [`Request::Reclaim`].
//!
//! ```text
//! host                                  launcher
//!  Hello{version} ─────────────────────►
//!  ◄──────────── Welcome{sandboxes}
//!  Create{sandbox,image,limits} ───────►  forks a worker; other requests go on meanwhile
//!  ◄──────────── Descriptor{Control} + fd
//!  ◄──────────── Descriptor{DoorTcp} + fd
//!  ◄──────────── Descriptor{DoorDns} + fd
//!  ◄──────────── Descriptor{DoorDnsV6} + fd
//!  ◄──────────── Ready(Sandbox)          same request id on all
//! ```

use serde::{Deserialize, Serialize};

use crate::Failure;

/// A message from the host to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToLauncher {
    /// Epoch of the sending host. In a hello the launcher refuses one lower than the highest it has seen, and one far beyond it;
    /// afterwards every other.
    pub epoch: u64,
    /// Request number, chosen by the host, never 0.
    pub id: u64,
    /// Time that the host will wait, in milliseconds; the launcher gives up and cleans up after it.
    pub deadline_ms: u32,
    /// What is asked.
    pub body: Request,
}

/// What a host may ask of the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First message on every connection. Answered by [`Reply::Welcome`].
    Hello {
        /// Must equal [`crate::VERSION`].
        version: u16,
    },
    /// Makes and starts a sandbox, or starts one again whose files were kept. Answered by one
    /// [`Reply::Descriptor`] message for each [`DescriptorKind`] and [`Reply::Ready`].
    Create {
        /// Bare lowercase ULID, chosen by the host.
        sandbox: String,
        /// Digest of an image manifest in the store: `sha256:` and 64 hexadecimal digits. Kept files go on with the image
        /// that they were made from.
        image: String,
        /// Limits of the whole sandbox.
        limits: Limits,
    },
    /// Makes and starts a sandbox in which git works on one repository of the forge that the launcher was given. It has no
    /// network, no files of its own, and ends with the host that asked for it. Answered by [`DescriptorKind::Control`] in a
    /// [`Reply::Descriptor`], and [`Reply::Ready`].
    OpenRepository {
        /// Bare lowercase ULID, chosen by the host.
        sandbox: String,
        /// Name of the repository: its folder without `.git`.
        repository: String,
        /// What git may do to it.
        access: RepositoryAccess,
        /// Limits of the whole sandbox.
        limits: Limits,
    },
    /// The descriptors of a living sandbox once more. Answered like [`Request::Create`].
    Reclaim {
        /// Which.
        sandbox: String,
    },
    /// Ends a sandbox: every process, its cgroup, its namespaces. Answered by [`Reply::Ended`] when nothing of
    /// it is left.
    Destroy {
        /// Which; one that does not live is no error.
        sandbox: String,
        /// What becomes of its files.
        files: Files,
    },
    /// Ends every sandbox, keeps their files, then ends the launcher. Answered by [`Reply::Done`].
    Shutdown,
    /// Makes TCP sockets inside a living sandbox's network namespace. Answered by as many [`Reply::Descriptor`] messages and
    /// [`Reply::Done`].
    Mint {
        /// Which.
        sandbox: String,
        /// Of which addresses.
        family: Family,
        /// How many, 1 to [`MAX_MINTED`].
        count: u32,
    },
}

/// Where the repository lies in a sandbox that [`Request::OpenRepository`] makes.
pub const REPOSITORY: &str = "/repository";

/// What git may do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepositoryAccess {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// Most sockets of one [`Request::Mint`].
pub const MAX_MINTED: u32 = 16;

/// Addresses of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What becomes of a sandbox's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// Kept: a later [`Request::Create`] with the same id finds them again.
    Keep,
    /// Removed.
    Remove,
}

/// Limits of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes; swap is off.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// CPU time per wall time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Share of the CPU time where sandboxes compete for it, 1 to 1000; twice the number gets twice the time.
    pub cpu_weight: u32,
    /// The same for disks, where the kernel can share them out.
    pub io_weight: u32,
    /// What its own files may take of the disk, in bytes.
    pub disk: u64,
    /// Names of files and folders that it may have made.
    pub files: u64,
}

/// A message from the launcher to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromLauncher {
    /// Epoch of the request that this answers; for events and where a hello is refused, the highest seen.
    pub epoch: u64,
    /// Number of the request that this answers; 0 for an event.
    pub id: u64,
    /// The answer or event.
    pub body: Message,
}

/// What a launcher sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// An answer to a request.
    Reply(Result<Reply, Failure>),
    /// Something happened.
    Event(Event),
}

/// Answers to requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome {
        /// Version of the launcher.
        version: u16,
        /// Its process number.
        pid: i32,
        /// Ids of the living sandboxes.
        sandboxes: Vec<String>,
    },
    /// One descriptor of a sandbox, in this message.
    Descriptor(DescriptorKind),
    /// A sandbox lives and all of its descriptors were sent.
    Ready(Sandbox),
    /// Nothing of a sandbox is left but, where they are kept, its files.
    Ended {
        /// Why it had ended by itself before it was told to, where it had: as in [`Event::Died`].
        died: Option<String>,
    },
    /// Done, nothing to say.
    Done,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DescriptorKind {
    /// Control socket of the guest, `SOCK_SEQPACKET`.
    Control,
    /// Listener inside the network namespace to which every TCP connection is redirected.
    DoorTcp,
    /// UDP socket inside the network namespace to which every DNS query over IPv4 is redirected.
    DoorDns,
    /// The same over IPv6; not sent where the machine has no IPv6.
    DoorDnsV6,
    /// A TCP socket made inside the network namespace, not connected.
    Minted,
}

/// A living sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its id.
    pub sandbox: String,
    /// Number of this start, unique within the life of the launcher: the same id started again has another.
    pub instance: u64,
    /// Process number of its PID 1 on the host.
    pub pid: i32,
    /// First host uid and gid of its range of 65,536.
    pub uid_base: u32,
    /// Whether its files were there before (kept by an earlier [`Files::Keep`]).
    pub restored: bool,
}

/// Things that happen without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A sandbox ended without being told to: its PID 1 exited or was killed, or it was over a limit.
    Died {
        /// Which.
        sandbox: String,
        /// Which start of it, see [`Sandbox::instance`].
        instance: u64,
        /// Why, in words: the exit status or signal, or the limit with what was used of it.
        why: String,
    },
}
