//! The repository on disk, and the way of its commits to the host. Runs the system's git.
//!
//! The token reaches git through its environment, never through an argument or an address, which other users of the
//! machine could see. What the user's own configuration would add (hooks, proxies, other headers) stays out of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Url;
use tokio::process::Command;

use super::CliError;
use crate::api::ApiToken;

/// Branches of sessions, which nobody else pushes to.
const OWN_BRANCHES: &str = "ostler/";

/// Variables that would make git look at another repository than the one that was named.
const MISLEADING: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

/// A repository on disk.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    name: String,
}

/// A value of git's configuration, as it holds in `folder`, which need not be a repository.
pub async fn config(folder: &Path, key: &str) -> Result<Option<String>, CliError> {
    let folder = Repository { path: folder.to_owned(), name: String::new() };
    let value = folder.try_git(&["config", "--get", key]).await?.ok();
    Ok(value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
}

/// What the agent starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Branch, without `refs/heads/`.
    pub branch: String,
    /// Its commit.
    pub commit: String,
    /// Whether it is checked out.
    pub current: bool,
}

impl Repository {
    /// The repository at `path` or around it.
    pub async fn open(path: &Path) -> Result<Self, CliError> {
        let given = path.display();
        let path = path.canonicalize().map_err(|error| CliError::Repository {
            message: format!("there is no repository at {given}: {error}"),
            hint: "name one with `--repo PATH`".to_owned(),
        })?;
        let repository = Self { path, name: String::new() };
        let bare = repository.try_git(&["rev-parse", "--is-bare-repository"]).await?;
        let bare = bare.map_err(|said| match said.contains("dubious ownership") {
            true => CliError::Repository {
                message: format!("git does not trust {given}, because it belongs to another user"),
                hint: format!("if you do: git config --global --add safe.directory {}", repository.path.display()),
            },
            false => CliError::Repository {
                message: format!("{given} is not a git repository"),
                hint: "go to one, or name one with `--repo PATH`".to_owned(),
            },
        })?;
        let question = if bare == "true" { "--absolute-git-dir" } else { "--show-toplevel" };
        let root = PathBuf::from(repository.git("find the repository's folder", &["rev-parse", question]).await?);
        let named = if root.ends_with(".git") { root.parent().unwrap_or(&root) } else { &root };
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { path: root, name })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name.
    pub fn folder_name(&self) -> &str {
        &self.name
    }

    /// The branch and commit to start from: `branch`, or the one that is checked out.
    pub async fn start(&self, branch: Option<&str>) -> Result<Start, CliError> {
        let head = self.try_git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?.ok();
        let Some(branch) = branch.or(head.as_deref()) else {
            return Err(CliError::Repository {
                message: "no branch is checked out (detached HEAD)".to_owned(),
                hint: "name one with `--branch NAME`, or make one with `git switch -c NAME`".to_owned(),
            });
        };
        if branch.starts_with(OWN_BRANCHES) {
            return Err(CliError::Repository {
                message: format!("`{branch}` belongs to a session, the agent cannot start from it"),
                hint: "start from another branch with `--branch NAME`".to_owned(),
            });
        }
        let current = head.as_deref() == Some(branch);
        let revision = format!("refs/heads/{branch}^{{commit}}");
        let commit = self.try_git(&["rev-parse", "--verify", "--quiet", &revision]).await?;
        let commit = commit.map_err(|_| match current {
            true => CliError::Repository {
                message: format!("the branch `{branch}` has no commit yet"),
                hint: "commit something first: `git add -A && git commit`".to_owned(),
            },
            false => CliError::Repository {
                message: format!("there is no branch `{branch}` in {}", self.path.display()),
                hint: "`git branch` lists them".to_owned(),
            },
        })?;
        if self.git("look for missing history", &["rev-parse", "--is-shallow-repository"]).await? == "true" {
            return Err(CliError::Repository {
                message: "the repository is a shallow clone, its history cannot be pushed".to_owned(),
                hint: "fetch the rest with `git fetch --unshallow`".to_owned(),
            });
        }
        Ok(Start { branch: branch.to_owned(), commit, current })
    }

    /// Number of changes that no commit holds.
    pub async fn uncommitted(&self) -> Result<usize, CliError> {
        let bare = self.git("look at the repository", &["rev-parse", "--is-bare-repository"]).await?;
        if bare == "true" {
            return Ok(0);
        }
        let status = self.git("look for uncommitted changes", &["status", "--porcelain=v1"]).await?;
        Ok(status.lines().count())
    }

    /// Brings `start` to the repository at `url` under the same name. A branch there that was moved by a rebase here is
    /// moved too; one that has commits this clone has never seen is not. Returns the commit that was there before, if
    /// it was another.
    pub async fn push(&self, start: &Start, url: &Url, token: &ApiToken) -> Result<Option<String>, CliError> {
        let reference = format!("refs/heads/{}", start.branch);
        let remote = Remote { url, token };
        let listed =
            self.remote("ask the host for its branch", &remote, &["ls-remote", "--quiet"], &[&reference]).await?;
        let exact =
            |line: &str| line.split_once('\t').filter(|(_, name)| *name == reference).map(|(oid, _)| oid.to_owned());
        let before = listed.lines().find_map(exact);
        if before.as_deref() == Some(&start.commit) {
            return Ok(None);
        }
        if let Some(before) = &before
            && self.try_git(&["cat-file", "-e", &format!("{before}^{{commit}}")]).await?.is_err()
        {
            return Err(CliError::Repository {
                message: format!(
                    "the host's branch `{}` is at {before}, a commit that this clone has never seen",
                    start.branch
                ),
                hint: "it may be another repository of the same name: name yours with `--repository NAME`".to_owned(),
            });
        }
        let lease = format!("--force-with-lease={reference}:{}", before.as_deref().unwrap_or_default());
        let refspec = format!("{}:{reference}", start.commit);
        let operation = format!("push `{}` to the host", start.branch);
        let options = ["push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", &lease];
        self.remote(&operation, &remote, &options, &[&refspec]).await?;
        Ok(before)
    }

    async fn remote(
        &self,
        operation: &str,
        remote: &Remote<'_>,
        options: &[&str],
        what: &[&str],
    ) -> Result<String, CliError> {
        let mut command = self.command();
        remote.configure(&mut command);
        command.args(options).arg(remote.url.as_str()).args(what);
        run(command).await?.map_err(|said| CliError::Git { operation: operation.to_owned(), said })
    }

    async fn git(&self, operation: &str, arguments: &[&str]) -> Result<String, CliError> {
        let done = self.try_git(arguments).await?;
        done.map_err(|said| CliError::Git { operation: operation.to_owned(), said })
    }

    async fn try_git(&self, arguments: &[&str]) -> Result<Result<String, String>, CliError> {
        let mut command = self.command();
        command.args(arguments);
        run(command).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.path).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_OPTIONAL_LOCKS", "0").stdin(Stdio::null()).kill_on_drop(true);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command
    }
}

/// The host's repository, and what opens it.
struct Remote<'a> {
    url: &'a Url,
    token: &'a ApiToken,
}

impl Remote<'_> {
    fn configure(&self, command: &mut Command) {
        let http = |key: &str| format!("http.{}.{key}", self.url);
        let entries = [
            // An empty value forgets headers that the user's configuration would add.
            (http("extraHeader"), String::new()),
            (http("extraHeader"), format!("Authorization: Bearer {}", self.token.expose())),
            (http("proxy"), String::new()),
            (http("followRedirects"), "false".to_owned()),
            ("credential.helper".to_owned(), String::new()),
            ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
            ("push.gpgSign".to_owned(), "false".to_owned()),
        ];
        // Entries that were there before stay: they may say which repositories are safe.
        let before = std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        for (index, (key, value)) in (before..).zip(&entries) {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.env("GIT_CONFIG_COUNT", (before + entries.len()).to_string());
    }
}

/// Runs git: what it said on stdout, or where it failed its last words on stderr.
async fn run(mut command: Command) -> Result<Result<String, String>, CliError> {
    let output = command.output().await.map_err(CliError::NoGit)?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(4)..].join("; ");
    Ok(Err(if last.is_empty() { format!("nothing ({})", output.status) } else { last }))
}

/// A name that the host takes for a repository: of `[a-z0-9._-]`, beginning with a letter or digit. `None` where nothing
/// of the folder's name is left.
pub fn repository_name(folder: &str) -> Option<String> {
    let mut name = String::new();
    for character in folder.to_lowercase().chars() {
        let plain = character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
        let next = if plain { character } else { '-' };
        let begins = name.is_empty() && !next.is_ascii_alphanumeric();
        let repeats = matches!(next, '-' | '.') && name.ends_with(next);
        if !begins && !repeats && name.len() < 100 {
            name.push(next);
        }
    }
    let mut rest = name.as_str();
    while let Some(shorter) = rest.strip_suffix(".git").or(rest.strip_suffix(['.', '-'])) {
        rest = shorter;
    }
    (!rest.is_empty()).then(|| rest.to_owned())
}
