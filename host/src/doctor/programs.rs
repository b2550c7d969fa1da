//! Are the programs there that the host runs?

use std::io;
use std::path::PathBuf;
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
    vec![git(&said).of("programs.git")]
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
