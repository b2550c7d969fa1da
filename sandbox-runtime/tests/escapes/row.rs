//! One attempt as data: what it is called after, what it does, what stops it.

use ostler_sandbox::defence::Defence;

/// One row of the table, and one test of the same name.
pub struct Row {
    /// Name of its test.
    pub name: &'static str,
    /// The entries of the public lists that it is made after.
    pub after: &'static str,
    /// What it tries, in words.
    pub tries: &'static str,
    pub attempt: Attempt,
    /// What stands in its way. Each alone stops it.
    pub defences: &'static [Defence],
    pub without: Without,
}

/// What happens where every one of the defences is left out.
pub enum Without {
    /// It gets through.
    Through,
    /// It is still stopped, or leaving it out is not possible: why.
    Stopped(&'static str),
}

/// How it is done.
pub enum Attempt {
    /// A command in the sandbox: arguments of the program of `tests/inside`.
    Command(&'static [&'static str]),
    /// The same in a sandbox that was restored, with something in its files that was not there by right.
    Restored(Planted, &'static [&'static str]),
    /// A sandbox whose files have a link in place of this directory is to start.
    Link(&'static str),
    /// A sandbox whose user database never ends is to be made.
    EndlessUsers,
    /// A command is to run in a directory of the machine, by a descriptor that was left open.
    ForeignDirectory,
    /// PID 1 is to change the program of later sandboxes.
    GuestProgram,
    /// A command is to connect to an abstract socket of the machine.
    AbstractSocket,
    /// A command is to read a segment of shared memory of the machine.
    SharedMemory,
}

/// What lies at `/workspace/planted` in a restored tree; for [`Planted::NullLink`], at `/dev/null`.
#[derive(Clone, Copy)]
pub enum Planted {
    /// The program, of root, with the setuid bit.
    SetUid,
    /// The program with a capability of its own.
    Capability,
    /// The node of a device, open to everybody.
    Device,
    /// A link to a file.
    NullLink,
}
