//! Names that become folders or git references, checked once at the edge.
//!
//! A [`RepositoryName`] or [`BranchName`] that exists is safe as a file name, in a git argument and in a reference;
//! code below this module never checks again.

use std::fmt;
use std::str::FromStr;

use super::ForgeError;

/// Longest name of a repository, in bytes.
const MAX_REPOSITORY: usize = 100;

/// Longest name of a branch, in bytes. File systems allow 255 per component, and git appends `.lock`.
const MAX_BRANCH: usize = 200;

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "`{}` is not a repository name: 1 to {MAX_REPOSITORY} characters of a-z, 0-9, `.`, `_` and `-`, beginning with a letter \
         or digit, without `..` and not ending with `.`, `.git` or `.lock`",
        shown(text)
    )]
    Repository {
        /// What was given.
        text: String,
    },
    /// Not a branch name.
    #[error(
        "`{}` is not a branch name: 1 to {MAX_BRANCH} bytes that git accepts as a reference (no space, control character, \
         `..`, `@{{`, `~`, `^`, `:`, `?`, `*`, `[` or backslash; no part that begins with `.` or ends with `.lock`)",
        shown(text)
    )]
    Branch {
        /// What was given.
        text: String,
    },
    /// Not the full name of a commit.
    #[error("`{}` is not a commit: 40 lowercase hexadecimal digits were expected", shown(text))]
    Commit {
        /// What was given.
        text: String,
    },
    /// Not a path inside a tree.
    #[error("`{}` is not a path in a repository: it must be relative, without empty, `.` or `..` parts", shown(text))]
    Path {
        /// What was given.
        text: String,
    },
}

/// The beginning of a text for a message: bounded and on one line.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        shown.push('…');
    }
    shown
}

/// Name of a repository on the forge: 1 to 100 characters of `[a-z0-9._-]`, beginning with a letter or digit, without
/// `..` and not ending with `.`, `.git` or `.lock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// A name from its text.
    pub fn new(text: &str) -> Result<Self, ForgeError> {
        Ok(text.parse()?)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=MAX_REPOSITORY).contains(&text.len())
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
            && !text.contains("..")
            && ![".", ".git", ".lock"].iter().any(|end| text.ends_with(end));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Repository { text: text.to_owned() }) }
    }
}

/// Short name of a branch, checked; such as `main` or `ostler/01jd3kq4v5w6x7y8z9a0b1c2d3`, by the rules of `git check-ref-format --branch`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BranchName(String);

impl BranchName {
    /// The full reference: `refs/heads/…`.
    pub(super) fn reference(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BranchName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let good = (1..=MAX_BRANCH).contains(&text.len())
            && text.split('/').all(part)
            && !text.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
            && !text.contains("..")
            && !text.contains("@{")
            && !text.starts_with('-')
            && !text.ends_with('.')
            && text != "@"
            && text != "HEAD";
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Branch { text: text.to_owned() }) }
    }
}

/// Checks the full name of a commit: 40 lowercase hexadecimal digits.
pub(super) fn commit(text: &str) -> Result<&str, NameError> {
    let good = text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(text) } else { Err(NameError::Commit { text: text.to_owned() }) }
}

/// Checks a path inside a tree: relative, without empty, `.` or `..` parts.
pub(super) fn tree_path(text: &str) -> Result<&str, NameError> {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let good = text.len() <= 4096 && !text.contains('\0') && text.split('/').all(part);
    if good { Ok(text) } else { Err(NameError::Path { text: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_repository_name_is_a_safe_folder_name() {
        for name in ["a", "demo", "demo-repo", "a.b_c-1", "0", &"a".repeat(100)] {
            assert_eq!(name.parse::<RepositoryName>().unwrap().as_str(), name);
        }
        let bad = [
            "", ".", "..", "../x", "a/b", "a..b", "A", "-a", "_a", ".a", "a.", "a.git", "a.lock", "ä", "a\n", "a\0",
            "a b",
        ];
        for name in bad.into_iter().chain([&*"a".repeat(101)]) {
            let error = name.parse::<RepositoryName>().unwrap_err();
            assert!(error.to_string().contains("is not a repository name"), "{error}");
        }
    }

    /// Ours may be stricter than git, never laxer.
    #[test]
    fn a_branch_name_is_one_that_git_accepts() {
        let good = ["main", "ostler/01jd", "a-b", "feature/x.y", "ünï", "a@b", "x{y"];
        let bad = [
            "", "-a", "/a", "a/", "a//b", ".a", "a/.b", "a..b", "a.lock", "a.lock/b", "a b", "a~b", "a^b", "a:b",
            "a?b", "a*b", "a[b", "a\\b", "a@{b", "a.", "@", "HEAD", "a\n", "a\u{7f}",
        ];
        for name in good {
            assert!(name.parse::<BranchName>().is_ok(), "{name}");
            let status = Command::new("git").args(["check-ref-format", "--branch", name]).output().unwrap().status;
            assert!(status.success(), "git refuses {name}");
        }
        for name in bad.into_iter().chain([&*"a".repeat(201)]) {
            assert!(name.parse::<BranchName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_long_or_many_lined_text_is_shown_short_and_on_one_line() {
        let error = format!("x\n{}", "y".repeat(500)).parse::<RepositoryName>().unwrap_err().to_string();
        assert!(error.contains("x\\n") && !error.contains('\n') && error.len() < 500, "{error}");
    }
}
