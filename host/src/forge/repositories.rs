//! Bare repositories on disk: `<root>/<name>.git`, made whole or not at all.
//!
//! Owns the folder. Everything else asks git, through [`Forge::query`], with names that were checked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::places::{Place, Places};
use super::process::{Answer, GitCommand, answer};
use super::running::{Exit, GitRunner, RunningGit};
use super::{BranchName, ForgeError, GitError, RepositoryName};
use ostler_sandbox::fault;
use ostler_sandbox::wire::launcher::RepositoryAccess;
use rustix::fs::OFlags;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Prefix of a repository that is being made; no repository name begins with a dot.
const UNFINISHED: &str = ".new-";

/// How many names an error lists.
const KNOWN: usize = 11;

/// Bytes of output for queries that answer with a few lines.
pub(super) const SHORT: usize = 64 * 1024;

/// Limits of a forge. [`Default`] gives the documented ones.
#[derive(Clone, Copy, Debug)]
pub struct ForgeLimits {
    /// Largest pack that a holder of the API token may push, in bytes (4 GiB).
    pub full_push: u64,
    /// Largest pack that a session may push, in bytes (512 MiB).
    pub session_push: u64,
    /// Largest request for objects, in bytes after decompression (16 MiB).
    pub fetch_request: u64,
    /// Time for a whole clone, fetch or push of a holder of the API token (15 minutes).
    pub full_transfer: Duration,
    /// The same of a session, whose sandbox is on this machine (5 minutes).
    pub session_transfer: Duration,
    /// Time that a client may let pass between two pieces of a request, or before it takes the next piece of an answer (60 s).
    pub idle: Duration,
    /// Time for a query, such as a diff (30 s).
    pub query: Duration,
    /// Git processes at the same time for the host and the holders of its token, and as many for all sandboxes (32).
    pub processes: usize,
    /// Git requests at the same time, for all holders of the API token (8).
    pub full_requests: usize,
    /// Git requests at the same time, for one session (4).
    pub session_requests: usize,
}

impl Default for ForgeLimits {
    fn default() -> Self {
        Self {
            full_push: 4 << 30,
            session_push: 512 << 20,
            fetch_request: 16 << 20,
            full_transfer: Duration::from_secs(15 * 60),
            session_transfer: Duration::from_secs(5 * 60),
            idle: Duration::from_secs(60),
            query: Duration::from_secs(30),
            processes: 32,
            full_requests: 8,
            session_requests: 4,
        }
    }
}

/// The built-in forge: bare repositories in one folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Forge {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    runner: GitRunner,
    limits: ForgeLimits,
    pub(super) places: Places,
}

/// A repository of the forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: RepositoryName,
    /// Branch that work starts from by default. It does not exist while the repository is empty.
    pub default_branch: String,
    /// The bare repository on disk, for people to look at.
    pub path: PathBuf,
}

/// A branch and what it points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its short name.
    pub name: String,
    /// Commit: 40 lowercase hexadecimal digits.
    pub commit: String,
}

impl Forge {
    /// Opens the forge in a folder, making it if need be, and removes what an interrupted [`Forge::create`] left.
    /// Blocks shortly on the file system.
    pub fn open(root: &Path, runner: GitRunner) -> Result<Self, ForgeError> {
        Self::open_with(root, runner, ForgeLimits::default())
    }

    /// [`Forge::open`] with other limits.
    pub fn open_with(root: &Path, runner: GitRunner, limits: ForgeLimits) -> Result<Self, ForgeError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ForgeError::Io { operation, path, source }
        };
        fs::create_dir_all(root).map_err(io("create", root))?;
        let root = root.canonicalize().map_err(io("open", root))?;
        for entry in fs::read_dir(&root).map_err(io("list", &root))? {
            let entry = entry.map_err(io("list", &root))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path()).map_err(io("remove", &entry.path()))?;
            }
        }
        let places = Places::new(limits.processes, limits.query);
        Ok(Self { inner: Arc::new(Inner { root, runner, limits, places }) })
    }

    /// Makes an empty repository whose default branch is `main`, or finds the one that is there. A crash leaves all of
    /// it or nothing.
    pub async fn create(&self, name: &RepositoryName) -> Result<Repository, ForgeError> {
        match self.get(name).await {
            Err(ForgeError::UnknownRepository { .. }) => {}
            found => return found,
        }
        let unfinished = self.inner.root.join(format!("{UNFINISHED}{}", ulid::Ulid::generate()));
        let made = self.make(&unfinished, &self.path(name)).await;
        if made.is_err() {
            // What cannot be removed now is removed by the next `open`.
            let _ = tokio::fs::remove_dir_all(&unfinished).await;
        }
        made?;
        fault::point("forge.placed");
        self.get(name).await
    }

    async fn make(&self, unfinished: &Path, path: &Path) -> Result<(), ForgeError> {
        let (from, to, root) = (unfinished.to_owned(), path.to_owned(), self.inner.root.clone());
        let renamed = tokio::task::spawn_blocking(move || {
            make_empty(&from)?;
            fault::point("forge.unplaced");
            for name in ["HEAD", "config", "refs", "objects", "."] {
                File::open(from.join(name))?.sync_all()?;
            }
            match fs::rename(&from, &to) {
                // Somebody else was quicker; theirs is as good.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&from),
                renamed => renamed,
            }?;
            File::open(root)?.sync_all()
        });
        let renamed = renamed.await.map_err(io::Error::other).and_then(|result| result);
        renamed.map_err(|source| ForgeError::Io { operation: "create", path: path.to_owned(), source })
    }

    /// One repository.
    pub async fn get(&self, name: &RepositoryName) -> Result<Repository, ForgeError> {
        let path = self.path(name);
        match tokio::fs::symlink_metadata(&path).await {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(ForgeError::Foreign { path, why: "it is not a folder" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let known = self.names().await?.into_iter().take(KNOWN).map(|name| name.to_string()).collect();
                return Err(ForgeError::UnknownRepository { repository: name.clone(), known });
            }
            Err(source) => return Err(ForgeError::Io { operation: "look at", path, source }),
        }
        let default_branch = default_branch(&path).await?.to_string();
        Ok(Repository { name: name.clone(), default_branch, path })
    }

    /// Repositories by name, at most `limit`, of those after the name `after`.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Repository>, ForgeError> {
        let mut repositories = Vec::new();
        let names = self.names().await?.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after));
        for name in names.take(limit) {
            repositories.push(self.get(&name).await?);
        }
        Ok(repositories)
    }

    async fn names(&self) -> Result<Vec<RepositoryName>, ForgeError> {
        let root = &self.inner.root;
        let io = |source| ForgeError::Io { operation: "list", path: root.clone(), source };
        let mut entries = tokio::fs::read_dir(root).await.map_err(io)?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(io)? {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".git")).and_then(|name| name.parse().ok());
            if let Some(name) = name
                && entry.file_type().await.is_ok_and(|kind| kind.is_dir())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What a branch points at; the default branch where none is named. Errors for an unknown repository or branch name
    /// what exists.
    pub async fn resolve(&self, name: &RepositoryName, branch: Option<&str>) -> Result<Branch, ForgeError> {
        let repository = self.get(name).await?;
        let asked = branch.unwrap_or(&repository.default_branch).parse::<BranchName>()?;
        if let Some(commit) = self.tip(name, &asked).await? {
            return Ok(Branch { name: asked.to_string(), commit });
        }
        let count = format!("--count={KNOWN}");
        let arguments = ["for-each-ref", "--sort=-committerdate", &count, "--format=%(refname:strip=2)", "refs/heads"];
        let known: Vec<_> =
            self.query_text(name, "for-each-ref", &arguments).await?.lines().map(str::to_owned).collect();
        if known.is_empty() {
            return Err(ForgeError::Empty { repository: name.clone() });
        }
        Err(ForgeError::UnknownBranch { repository: name.clone(), branch: asked.to_string(), known })
    }

    /// Commit of a branch, or `None` where there is no such branch.
    pub(super) async fn tip(&self, name: &RepositoryName, branch: &BranchName) -> Result<Option<String>, ForgeError> {
        let revision = format!("{}^{{commit}}", branch.reference());
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &revision];
        let answer = self.query(name, "rev-parse", &arguments, SHORT).await?;
        if answer.status == Some(Exit(1)) {
            return Ok(None);
        }
        let text = text("rev-parse", answer)?;
        let commit = super::name::commit(text.trim()).map_err(|_| ForgeError::Answer { command: "rev-parse" })?;
        Ok(Some(commit.to_owned()))
    }

    /// Makes a branch the default one. It must exist.
    pub async fn set_default_branch(&self, name: &RepositoryName, branch: &str) -> Result<(), ForgeError> {
        let reference = branch.parse::<BranchName>()?.reference();
        self.resolve(name, Some(branch)).await?;
        let mut command = GitCommand::new(name.clone(), RepositoryAccess::Write, &[]);
        command.args(&["--git-dir", ".", "symbolic-ref", "HEAD", &reference]);
        let answer = self.answer("symbolic-ref", command, SHORT).await?;
        succeeded("symbolic-ref", answer).map(drop)
    }

    /// The limits of this forge.
    pub(super) fn limits(&self) -> &ForgeLimits {
        &self.inner.limits
    }

    /// Where a repository lies.
    pub(super) fn path(&self, name: &RepositoryName) -> PathBuf {
        self.inner.root.join(format!("{name}.git"))
    }

    /// The places among the permitted git processes; a wait for one has the time of a query.
    pub(super) fn places(&self) -> &Places {
        &self.inner.places
    }

    /// Starts git within the time for a query: its sandbox may have to be made, behind others that wait for the same.
    pub(super) async fn start(&self, command: GitCommand, place: Place) -> Result<(UnixStream, RunningGit), GitError> {
        let started = self.inner.runner.start(&self.inner.root, command, place);
        // A sandbox that is ready for nobody is ended by its client.
        let started = tokio::time::timeout(self.inner.limits.query, started).await;
        started.unwrap_or(Err(GitError::Late { seconds: self.inner.limits.query.as_secs() }))
    }

    async fn answer(&self, what: &'static str, command: GitCommand, limit: usize) -> Result<Answer, ForgeError> {
        let place = self.places().own().await?;
        let git = self.start(command, place).await.map_err(|source| ForgeError::Run { command: what, source })?;
        answer(what, git, limit, self.inner.limits.query).await
    }

    /// Asks git about a repository and returns at most `limit` bytes of what it says.
    pub(super) async fn query(
        &self,
        name: &RepositoryName,
        what: &'static str,
        arguments: &[&str],
        limit: usize,
    ) -> Result<Answer, ForgeError> {
        let mut command = GitCommand::new(name.clone(), RepositoryAccess::Read, &[]);
        command.args(&["--git-dir", ".", "--literal-pathspecs"]);
        command.args(arguments);
        self.answer(what, command, limit).await
    }

    /// Asks git for a short text; anything but success is an error.
    pub(super) async fn query_text(
        &self,
        name: &RepositoryName,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<String, ForgeError> {
        text(what, self.query(name, what, arguments, SHORT).await?)
    }
}

/// What `git init --bare` makes: gitrepository-layout(5). Git itself sees a repository only in its own sandbox.
fn make_empty(folder: &Path) -> io::Result<()> {
    for name in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::write(folder.join("config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")?;
    fs::write(folder.join("HEAD"), "ref: refs/heads/main\n")
}

/// Reads `HEAD`. The format of references is ours to choose (files), so that git need not be asked.
async fn default_branch(path: &Path) -> Result<BranchName, ForgeError> {
    let head = path.join("HEAD");
    let read = async {
        let mut text = String::new();
        // What git left there is followed nowhere and waited for by nobody.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = tokio::fs::OpenOptions::new().read(true).custom_flags(flags).open(&head).await?;
        file.take(1024).read_to_string(&mut text).await?;
        Ok(text)
    };
    let text = read.await.map_err(|source| ForgeError::Io { operation: "read", path: head.clone(), source })?;
    let branch = text.strip_prefix("ref: refs/heads/").and_then(|rest| rest.trim_end().parse().ok());
    branch.ok_or(ForgeError::Foreign { path: head, why: "it does not name a branch" })
}

/// The answer of a git that ended well and within its limit.
pub(super) fn succeeded(command: &'static str, answer: Answer) -> Result<Vec<u8>, ForgeError> {
    match answer.status {
        Some(status) if status.success() => Ok(answer.stdout),
        Some(status) => Err(ForgeError::Git { command, status: status.to_string(), stderr: answer.stderr }),
        None => Err(ForgeError::Answer { command }),
    }
}

fn text(command: &'static str, answer: Answer) -> Result<String, ForgeError> {
    String::from_utf8(succeeded(command, answer)?).map_err(|_| ForgeError::Answer { command })
}
