//! Are the programs there that the host runs?

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Check, Finding};
use crate::forge::OLDEST_GIT;

/// Time that a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine() -> Vec<Check> {
    let mut command = tokio::process::Command::new("git");
    command.arg("--version").env("LC_ALL", "C").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let said = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let place = in_path("git").and_then(|path| path.canonicalize().ok());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    vec![outside_of_sandboxes(place.as_deref(), &mounts).unwrap_or_else(|| git(&said)).of("programs.git")]
}

/// Folders of `/usr` that git and its libraries are in.
const NEEDED: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "share"];

/// Whether a sandbox that holds `/usr`, without what is mounted below it, holds the git that is at `place`. `None` where it
/// does.
fn outside_of_sandboxes(place: Option<&Path>, mounts: &str) -> Option<Finding> {
    if let Some(place) = place.filter(|place| !place.starts_with("/usr") && !place.starts_with("/bin")) {
        let words = format!("git is at {}; it runs in sandboxes that hold /usr of this machine only", place.display());
        return Some(Finding::failed(words, "apt-get install git"));
    }
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below = |point: &&str| {
        let first = point.strip_prefix("/usr/").and_then(|rest| rest.split('/').next());
        let holds_git = || place.is_some_and(|place| point.starts_with("/usr/") && place.starts_with(point));
        first.is_some_and(|first| NEEDED.contains(&first)) || holds_git()
    };
    let point = points.into_iter().find(below)?;
    let words =
        format!("{point} is mounted on its own; git runs in sandboxes that hold /usr without what is mounted below it");
    Some(Finding::failed(words, "keep /usr on one file system"))
}

/// Where a program is, if it is in `PATH`.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn git(said: &io::Result<String>) -> Finding {
    let install = "apt-get install git";
    let (major, minor) = OLDEST_GIT;
    let said = match said {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::failed("git is not in PATH; the host keeps repositories with it", install);
        }
        Err(error) => return Finding::failed(format!("git cannot be run: {error}"), install),
        Ok(said) => said,
    };
    let mut numbers = said.trim_start_matches("git version ").split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(second))) if (first, second) >= OLDEST_GIT => Finding::ok(said),
        (Some(Ok(_)), Some(Ok(_))) => Finding::failed(
            format!("{said}; before {major}.{minor} it does not keep a push on the disk before it says so"),
            install,
        ),
        _ => Finding::failed(format!("`git --version` says `{said}`"), install),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let said = |text: &str| Ok(text.to_owned());
    [
        said("git version 2.47.3"),
        said("git version 2.30.2"),
        said("something else"),
        Err(io::ErrorKind::NotFound.into()),
        Err(io::ErrorKind::PermissionDenied.into()),
    ]
    .map(|said| git(&said).of("programs.git"))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_that_no_sandbox_holds_is_told() {
        let mounts =
            |point: &str| format!("21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 8:2 / {point} rw - ext4 /dev/b rw\n");
        let told = |place: &str, point: &str| outside_of_sandboxes(Some(Path::new(place)), &mounts(point)).is_some();
        assert!(!told("/usr/bin/git", "/usr"));
        assert!(!told("/usr/bin/git", "/usr/local"));
        assert!(told("/usr/bin/git", "/usr/lib/git-core"));
        assert!(told("/nix/store/x/bin/git", "/usr"));
    }
}
