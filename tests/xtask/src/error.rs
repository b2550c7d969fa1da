//! What can go wrong here, what to do about it, and with which exit code.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that ends the task. Written by hand because this crate has no dependencies.
#[derive(Debug)]
pub enum Error {
    /// The arguments make no sense.
    Usage {
        /// What is wrong with them.
        problem: String,
    },
    /// The machine lacks something.
    Missing {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A program could not be started.
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with a failure.
    Command {
        /// The command line.
        command: String,
        /// How it ended: `exit status: 1`, a signal, or that it ran out of time.
        ending: String,
        /// The end of what it said, where it was not shown already; may be empty.
        tail: String,
    },
    /// A file or directory could not be read, written, made or removed.
    File {
        /// What was done, such as `write`.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Text that a program wrote is not what it should be.
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The demo ran and the result is not what it promises.
    Differs {
        /// What was looked at.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl Error {
    /// A function for `map_err` that adds what was done to which path.
    pub fn file(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { operation, path, source }
    }

    /// Exit code: those of `ostler`, see its table of errors.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Missing { .. } => 8,
            Self::Differs { .. } => 7,
            Self::Start { .. } | Self::Command { .. } | Self::File { .. } | Self::Malformed { .. } => 1,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Missing { hint, .. } => Some(hint),
            Self::Usage { .. } => Some("`cargo xtask help` shows what there is"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { problem } => f.write_str(problem),
            Self::Missing { what, .. } => f.write_str(what),
            Self::Start { command, .. } => write!(f, "starting `{command}`"),
            Self::Command { command, ending, tail } if tail.is_empty() => write!(f, "`{command}` failed: {ending}"),
            Self::Command { command, ending, tail } => write!(f, "`{command}` failed: {ending}\n{tail}"),
            Self::File { operation, path, .. } => write!(f, "{operation} {}", path.display()),
            Self::Malformed { what, problem } => write!(f, "{what}: {problem}"),
            Self::Differs { what, expected, found } => {
                write!(f, "{what} differs\n  expected: {expected}\n  found:    {found}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } | Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}
