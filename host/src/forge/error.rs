//! What can go wrong on the forge.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ostler_protocol::ErrorCode;

use super::{GitError, NameError, RepositoryName};

/// An operation of the forge that failed.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// A name, commit or path is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such repository.
    #[error("there is no repository `{repository}`; {}", choices("the forge has", known))]
    UnknownRepository {
        /// The one that was asked for.
        repository: RepositoryName,
        /// Some that exist, by name.
        known: Vec<String>,
    },
    /// The repository has no such branch.
    #[error("the repository `{repository}` has no branch `{branch}`; {}", choices("it has", known))]
    UnknownBranch {
        /// The repository.
        repository: RepositoryName,
        /// The one that was asked for.
        branch: String,
        /// Some that exist, the latest first.
        known: Vec<String>,
    },
    /// The repository has no such commit.
    #[error("the repository `{repository}` has no commit `{commit}`")]
    UnknownCommit {
        /// The repository.
        repository: RepositoryName,
        /// The one that was asked for.
        commit: String,
    },
    /// A file is too large to be read whole.
    #[error("`{file}` is larger than {limit} bytes")]
    TooLarge {
        /// Its path in the repository.
        file: String,
        /// The limit.
        limit: usize,
    },
    /// The repository has no commit at all: nothing was pushed to it yet.
    #[error("the repository `{repository}` is empty: push a branch to it first")]
    Empty {
        /// The repository.
        repository: RepositoryName,
    },
    /// The folder of a repository is not what the forge made: a link, a file, or a broken repository.
    #[error("`{}` is not a repository of this forge: {why}", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file system refused.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was tried, such as `create`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Git could not be started, or was lost.
    #[error("cannot run `git {command}`")]
    Run {
        /// The git command, such as `log`.
        command: &'static str,
        /// Why.
        #[source]
        source: GitError,
    },
    /// Git ended with an error.
    #[error("`git {command}` failed with {status}: {stderr}")]
    Git {
        /// The git command, such as `init`.
        command: &'static str,
        /// Exit status or signal, in words.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// Git answered with something that it never should.
    #[error("`git {command}` answered with something unexpected")]
    Answer {
        /// The git command.
        command: &'static str,
    },
    /// Git took too long and was ended.
    #[error("`git {command}` took longer than {deadline:?} and was ended")]
    Deadline {
        /// The git command.
        command: &'static str,
        /// The limit.
        deadline: Duration,
    },
    /// Too many git processes run already.
    #[error("the forge is busy: {processes} git processes run already")]
    Busy {
        /// How many may run at once.
        processes: usize,
    },
}

impl ForgeError {
    /// The code under which clients see it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::BadRequest,
            Self::UnknownRepository { .. }
            | Self::UnknownBranch { .. }
            | Self::UnknownCommit { .. }
            | Self::Empty { .. } => ErrorCode::NotFound,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorCode::NoSpace,
            Self::Git { stderr, .. } if stderr.contains("No space left on device") => ErrorCode::NoSpace,
            Self::Run { source, .. } if source.is_passing() => ErrorCode::Unavailable,
            Self::Run { .. } => ErrorCode::Environment,
            Self::Busy { .. } => ErrorCode::Overloaded,
            Self::Deadline { .. } => ErrorCode::Unavailable,
            Self::Foreign { .. } | Self::Io { .. } | Self::Git { .. } | Self::Answer { .. } => ErrorCode::Internal,
        }
    }
}

/// `it has a, b, c and others` or what to say where there is nothing.
fn choices(lead: &str, known: &[String]) -> String {
    const SHOWN: usize = 10;
    if known.is_empty() {
        return format!("{lead} none");
    }
    let shown = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = if known.len() > SHOWN { " and others" } else { "" };
    format!("{lead} {shown}{more}")
}
