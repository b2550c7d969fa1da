//! Reading a repository: differences, history, single files. Every answer is bounded.

use super::process::Answer;
use super::repositories::{Forge, SHORT, succeeded};
use super::running::Exit;
use super::{ForgeError, RepositoryName, name};

/// Most commits that one question returns.
const MAX_COMMITS: usize = 1000;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Full name: 40 lowercase hexadecimal digits.
    pub commit: String,
    /// Name of its author.
    pub author: String,
    /// E-mail address of its author.
    pub email: String,
    /// First line of its message.
    pub subject: String,
}

impl Forge {
    /// Unified diff of what a branch changed since it left `base`: from their merge base (from `base` itself where they
    /// share no history) to the branch. At most `max_bytes`, cut at the end of a line; the second part is whether it was
    /// cut. Bytes that are not UTF-8 are shown as U+FFFD. `base` is a full commit name.
    pub async fn diff(
        &self,
        name: &RepositoryName,
        base: &str,
        branch: &str,
        max_bytes: usize,
    ) -> Result<(String, bool), ForgeError> {
        name::commit(base)?;
        let tip = self.resolve(name, Some(branch)).await?.commit;
        self.require(name, base).await?;
        let answer = self.query(name, "merge-base", &["merge-base", base, &tip], SHORT).await?;
        let from = match answer.status {
            Some(Exit(1)) => base.to_owned(),
            _ => String::from_utf8_lossy(&succeeded("merge-base", answer)?).trim().to_owned(),
        };
        let arguments = [
            "diff",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--find-renames",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            &from,
            &tip,
            "--",
        ];
        bounded("diff", self.query(name, "diff", &arguments, max_bytes).await?)
    }

    /// Commits of a branch that are not in `after` (a full commit name; all where absent), the latest first, at most
    /// `max` and never more than 1,000.
    pub async fn log(
        &self,
        name: &RepositoryName,
        after: Option<&str>,
        branch: &str,
        max: usize,
    ) -> Result<Vec<Commit>, ForgeError> {
        let tip = self.resolve(name, Some(branch)).await?.commit;
        let count = format!("--max-count={}", max.min(MAX_COMMITS));
        let mut arguments =
            vec!["log", "--no-color", "--no-show-signature", &count, "--format=tformat:%H%x00%an%x00%ae%x00%s", &tip];
        let excluded;
        if let Some(after) = after {
            name::commit(after)?;
            self.require(name, after).await?;
            excluded = format!("^{after}");
            arguments.push(&excluded);
        }
        arguments.push("--");
        let answer = self.query(name, "log", &arguments, 8 << 20).await?;
        let text = String::from_utf8_lossy(&succeeded("log", answer)?).into_owned();
        text.lines().map(|line| commit(line).ok_or(ForgeError::Answer { command: "log" })).collect()
    }

    /// A regular file of a commit; `None` where the path is absent or something else (a directory, a symbolic link, a
    /// submodule). One of more than `max_bytes` is an error. Nothing is resolved in any file system.
    pub async fn read_file(
        &self,
        name: &RepositoryName,
        commit: &str,
        path: &str,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, ForgeError> {
        name::commit(commit)?;
        name::tree_path(path)?;
        self.get(name).await?;
        self.require(name, commit).await?;
        let listing = self.query_text(name, "ls-tree", &["ls-tree", "-z", "--full-tree", commit, "--", path]).await?;
        let mut fields = listing.split(['\t', '\0']).next().unwrap_or_default().split(' ');
        let (mode, object) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        if !mode.starts_with("100") {
            return Ok(None);
        }
        let answer = self.query(name, "cat-file", &["cat-file", "blob", object], max_bytes).await?;
        if answer.status.is_none() {
            return Err(ForgeError::TooLarge { file: path.to_owned(), limit: max_bytes });
        }
        succeeded("cat-file", answer).map(Some)
    }

    async fn require(&self, name: &RepositoryName, commit: &str) -> Result<(), ForgeError> {
        let answer = self.query(name, "cat-file", &["cat-file", "-e", &format!("{commit}^{{commit}}")], SHORT).await?;
        match answer.status {
            Some(status) if status.success() => Ok(()),
            // 1: absent; 128: there, but no commit.
            Some(Exit(1 | 128)) => {
                Err(ForgeError::UnknownCommit { repository: name.clone(), commit: commit.to_owned() })
            }
            _ => succeeded("cat-file", answer).map(drop),
        }
    }
}

fn commit(line: &str) -> Option<Commit> {
    let mut fields = line.splitn(4, '\0').map(str::to_owned);
    Some(Commit { commit: fields.next()?, author: fields.next()?, email: fields.next()?, subject: fields.next()? })
}

/// The text of an answer, cut at the end of its last whole line where it was too long.
fn bounded(command: &'static str, answer: Answer) -> Result<(String, bool), ForgeError> {
    if answer.status.is_some() {
        return Ok((String::from_utf8_lossy(&succeeded(command, answer)?).into_owned(), false));
    }
    let end = answer.stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((String::from_utf8_lossy(&answer.stdout[..end]).into_owned(), true))
}
