//! Git in the demo: the repository that it starts from, and what is in the forge afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::person::Person;
use crate::error::{Error, Result};
use crate::process;

/// Longest time for one git command or one run of the example's tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a repository with one commit from the files of `example`, on branch `main`.
///
/// # Errors
/// When files cannot be copied or git fails.
pub fn make(example: &Path, place: &Path) -> Result<()> {
    copy_tree(example, place)?;
    run(git(place).args(["init", "--quiet", "--initial-branch=main"]))?;
    run(git(place).args(["add", "--all"]))?;
    // The same commit on every machine; who made the example is not who asks in the demo.
    let commit = ["commit", "--quiet", "--message=A timesheet"];
    let at = "2025-01-01T00:00:00Z";
    run(git(place).args(commit).env("GIT_AUTHOR_DATE", at).env("GIT_COMMITTER_DATE", at))
}

/// Runs the example's tests; whether they pass, with what they say.
///
/// # Errors
/// When Python does not start or does not end.
pub fn tests_pass(place: &Path) -> Result<(bool, String)> {
    let mut python = Command::new("python3");
    python.current_dir(place).args(["-m", "unittest"]).env("PYTHONDONTWRITEBYTECODE", "1");
    let captured = process::capture(&mut python, LIMIT)?;
    Ok((captured.status.success(), captured.stderr))
}

/// The one bare repository in the forge below `data`.
///
/// # Errors
/// [`Error::Differs`] when there is not exactly one.
pub fn bare_below(data: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    find_bare(data, 4, &mut found);
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => Err(Error::Differs {
            what: format!("bare repositories below {}", data.display()),
            expected: "exactly one".to_owned(),
            found: format!("{found:?}"),
        }),
    }
}

/// The author of a branch's last commit.
///
/// # Errors
/// When there is no such branch.
pub fn author(bare: &Path, branch: &str) -> Result<Person> {
    let text = process::read(git(bare).args(["log", "-1", "--format=%an%n%ae", branch, "--"]), LIMIT)?;
    let mut lines = text.lines().map(str::to_owned);
    Ok(Person { name: lines.next().unwrap_or_default(), email: lines.next().unwrap_or_default() })
}

/// The log between two branches, one line per commit with author and files.
///
/// # Errors
/// When there is no such branch.
pub fn log(bare: &Path, base: &str, head: &str) -> Result<String> {
    let range = format!("{base}..{head}");
    process::read(git(bare).args(["log", "--format=%h %an <%ae>%n    %s", "--stat", &range, "--"]), LIMIT)
}

/// The files that differ between two branches.
///
/// # Errors
/// When there is no such branch.
pub fn changed_files(bare: &Path, base: &str, head: &str) -> Result<Vec<String>> {
    let range = format!("{base}...{head}");
    let text = process::read(git(bare).args(["diff", "--name-only", &range, "--"]), LIMIT)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The commit that a branch points to, 40 hexadecimal digits.
///
/// # Errors
/// When there is no such branch.
pub fn commit(bare: &Path, branch: &str) -> Result<String> {
    let text = process::read(git(bare).args(["rev-parse", "--verify", &format!("refs/heads/{branch}")]), LIMIT)?;
    Ok(text.trim().to_owned())
}

/// Clones one branch of a bare repository.
///
/// # Errors
/// When git fails.
pub fn check_out(bare: &Path, branch: &str, place: &Path) -> Result<()> {
    // The side that serves a clone trusts only a file to say so.
    let trust = place.with_extension("gitconfig");
    fs::write(&trust, "[safe]\n\tdirectory = *\n").map_err(Error::file("write", &trust))?;
    let mut clone = git(bare);
    clone.env("GIT_CONFIG_GLOBAL", &trust);
    clone.args(["clone", "--quiet", "--branch", branch]).arg(bare).arg(place);
    run(&mut clone)
}

/// Git without the configuration of whoever runs this: no hooks, signatures or templates of theirs.
fn git(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        // The forge's files belong to the host's own user.
        .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .envs([("GIT_AUTHOR_NAME", "Ostler demo"), ("GIT_AUTHOR_EMAIL", "demo@ostler.invalid")])
        .envs([("GIT_COMMITTER_NAME", "Ostler demo"), ("GIT_COMMITTER_EMAIL", "demo@ostler.invalid")]);
    git
}

fn run(command: &mut Command) -> Result<()> {
    process::read(command, LIMIT).map(|_| ())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::file("create", to))?;
    for entry in fs::read_dir(from).map_err(Error::file("list", from))? {
        let entry = entry.map_err(Error::file("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "__pycache__" {
            continue;
        }
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(Error::file("copy", &source))?;
        }
    }
    Ok(())
}

fn find_bare(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if path.extension().is_some_and(|extension| extension == "git") && path.join("HEAD").is_file() {
            found.push(path);
        } else if depth > 0 {
            find_bare(&path, depth - 1, found);
        }
    }
}
