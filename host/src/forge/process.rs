//! What git is told: clean environment, no hooks, bounds; and asking it for something short.
//!
//! Owns the settings and the environment of every git, not where it runs ([`super::running`]).

use std::time::Duration;

use ostler_sandbox::wire::launcher::RepositoryAccess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::running::{Exit, GitError, RunningGit};
use super::{ForgeError, RepositoryName};

/// Oldest git that keeps what [`SETTINGS`] promise: `core.fsync` came with it.
pub const OLDEST_GIT: (u32, u32) = (2, 36);

/// Settings of every git process; `-c` is stronger than any file and reaches git's own children.
const SETTINGS: &[&str] = &[
    // In its sandbox git runs as another user than the one that the repository seems to belong to, and it is never led to
    // any folder but one of the forge.
    "safe.directory=*",
    // What a client pushed never runs here, and nothing goes on in the background.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.autogc=false",
    // A push is acknowledged when it is on the disk: objects in one synced pack, and the reference.
    "core.fsync=all",
    "receive.unpackLimit=1",
    // Objects are checked before they are let in. The exceptions are old mistakes in names and dates that many honest
    // histories hold and that harm nobody.
    "transfer.fsckObjects=true",
    "receive.fsck.zeroPaddedFilemode=ignore",
    "receive.fsck.missingSpaceBeforeDate=ignore",
    "receive.fsck.missingNameBeforeEmail=ignore",
    "receive.fsck.badTimezone=ignore",
    "receive.advertisePushOptions=false",
    "uploadpack.allowFilter=true",
    // Larger files are streamed and never compared: what a client pushed decides how much memory a diff takes.
    "core.bigFileThreshold=16m",
];

/// Most bytes that git takes for one buffer while it reads what a sandbox pushed: a few kilobytes of a pack can stand for
/// gigabytes of a commit. Not for clones and for people's own pushes, whose tables grow with the number of objects.
const PUSHED_ALLOCATION: &str = "128m";

/// The whole environment of git but for where programs are found.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    // Later versions of git change both defaults.
    ("GIT_DEFAULT_HASH", "sha1"),
    ("GIT_DEFAULT_REF_FORMAT", "files"),
];

/// A git command on one repository, with the repository's folder as its directory.
#[derive(Clone, Debug)]
pub(super) struct GitCommand {
    /// The repository.
    pub(super) repository: RepositoryName,
    /// What git may do to it.
    pub(super) access: RepositoryAccess,
    /// All arguments.
    pub(super) arguments: Vec<String>,
    /// The environment, to which whoever runs it adds `PATH`.
    pub(super) environment: Vec<(String, String)>,
}

impl GitCommand {
    /// A command without its arguments. `settings` come after those of every git.
    pub(super) fn new(repository: RepositoryName, access: RepositoryAccess, settings: &[String]) -> Self {
        let settings = SETTINGS.iter().copied().chain(settings.iter().map(String::as_str));
        let arguments = settings.flat_map(|setting| ["-c".to_owned(), setting.to_owned()]).collect();
        let environment = ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { repository, access, arguments, environment }
    }

    /// Adds arguments.
    pub(super) fn args(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Adds a variable to the environment.
    pub(super) fn env(&mut self, name: &str, value: String) {
        self.environment.push((name.to_owned(), value));
    }

    /// Bounds the memory of a git that reads what a sandbox pushed.
    pub(super) fn distrust_input(&mut self) {
        self.env("GIT_ALLOC_LIMIT", PUSHED_ALLOCATION.to_owned());
    }
}

/// What a finished query of git printed.
#[derive(Debug)]
pub(super) struct Answer {
    /// How it ended; `None` where it was ended because it had printed `limit` bytes.
    pub(super) status: Option<Exit>,
    /// The first `limit` bytes.
    pub(super) stdout: Vec<u8>,
    /// The end of its error output, where it failed.
    pub(super) stderr: String,
}

/// Waits for a git that reads nothing and returns at most `limit` bytes of its output. Dropping the future ends it.
pub(super) async fn answer(
    name: &'static str,
    (stream, mut git): (UnixStream, RunningGit),
    limit: usize,
    deadline: Duration,
) -> Result<Answer, ForgeError> {
    let failed = |source| ForgeError::Run { command: name, source };
    let work = async {
        let output = read_all(stream, limit).await.map_err(GitError::Stream)?;
        // Git that has more to say would wait for a reader for ever.
        let ended = if output.len() > limit { None } else { Some(git.wait().await?) };
        Ok::<_, GitError>((output, ended))
    };
    let Ok(result) = timeout(deadline, work).await else {
        git.end().await;
        return Err(ForgeError::Deadline { command: name, deadline });
    };
    let (mut stdout, ended) = result.map_err(failed)?;
    match ended {
        Some(ended) => Ok(Answer { status: Some(ended.exit), stdout, stderr: ended.stderr }),
        None => {
            git.end().await;
            stdout.truncate(limit);
            Ok(Answer { status: None, stdout, stderr: String::new() })
        }
    }
}

/// Reads at most one byte more than `limit`.
async fn read_all(mut stream: UnixStream, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    stream.shutdown().await?;
    stream.take(limit as u64 + 1).read_to_end(&mut output).await?;
    Ok(output)
}
