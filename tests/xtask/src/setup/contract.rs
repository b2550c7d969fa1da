//! What the tests of the API's contract need: schemathesis in a virtual environment of its own, and the packages of the
//! TypeScript client. Both are kept in the user's cache folder and made anew when their pinned versions change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::packages;
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::Outcome;
use crate::process;
use crate::stamp::{Fingerprint, Stamp};

/// Longest time for one installer.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Longest time for a program that says its version.
const ASK: Duration = Duration::from_secs(60);

/// The oldest Node that has `fetch`.
const NODE: u32 = 18;

const PYTHON: &[(&str, &str)] = &[("python3-venv", "virtual environments, for schemathesis")];

const JAVASCRIPT: &[(&str, &str)] =
    &[("nodejs", "runs the TypeScript client"), ("npm", "installs the packages of the TypeScript client")];

/// Installs schemathesis and returns its program.
///
/// # Errors
/// [`Error::Missing`] where Python cannot make virtual environments; [`Error::Command`] when an installer fails.
pub fn schemathesis(layout: &Layout, no_packages: bool) -> Result<(PathBuf, Outcome)> {
    let requirements = layout.root.join("tests/it/contract/requirements.txt");
    let folder = layout.cache.join("schemathesis");
    let program = folder.join("bin/st");
    let fingerprint = Fingerprint::new("schemathesis 1").text(&python()?).file(&requirements)?;
    let stamp = Stamp::at(layout.cache.join("schemathesis.stamp"));
    if program.is_file() && stamp.holds(&fingerprint) {
        return Ok((program, Outcome::Fresh));
    }
    if !can_make_environments() {
        provide(PYTHON, no_packages)?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::file("remove", &folder))?;
    }
    layout::make_directory(&layout.cache)?;
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder), LIMIT)?;
    let mut install = Command::new(folder.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
    process::run(&mut install, LIMIT)?;
    let version = process::read(Command::new(&program).arg("--version"), ASK)?;
    stamp.write(&fingerprint)?;
    Ok((program, Outcome::Done(version.trim().to_owned())))
}

/// Installs the packages of the TypeScript client and returns the folder `node_modules`.
///
/// # Errors
/// [`Error::Missing`] without Node or with one that is too old; [`Error::Command`] when npm fails.
pub fn typescript(layout: &Layout, no_packages: bool) -> Result<(PathBuf, Outcome)> {
    let client = layout.root.join("clients/typescript");
    let folder = layout.cache.join("typescript");
    let modules = folder.join("node_modules");
    if node().is_none_or(|version| version < NODE) || !answers(Command::new("npm").arg("--version")) {
        provide(JAVASCRIPT, no_packages)?;
    }
    let Some(version) = node().filter(|version| *version >= NODE) else {
        return Err(Error::Missing {
            what: format!("there is no Node of version {NODE} or newer, which the tests of the TypeScript client need"),
            hint: "install a newer one, such as Debian's nodejs and npm, and put it first in PATH".to_owned(),
        });
    };
    let files = ["package.json", "package-lock.json", ".npmrc"];
    let mut fingerprint = Fingerprint::new("typescript 1").text(&version.to_string());
    for file in files {
        fingerprint = fingerprint.file(&client.join(file))?;
    }
    let stamp = Stamp::at(layout.cache.join("typescript.stamp"));
    if modules.is_dir() && stamp.holds(&fingerprint) {
        return Ok((modules, Outcome::Fresh));
    }
    layout::make_directory(&folder)?;
    for file in files {
        copy(&client.join(file), &folder.join(file))?;
    }
    let mut install = Command::new("npm");
    // No package of ours runs anything when it is installed.
    install.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    process::run(&mut install, LIMIT)?;
    stamp.write(&fingerprint)?;
    Ok((modules, Outcome::Done(format!("with Node {version}"))))
}

/// Installs packages, or says that they are missing where that was forbidden.
fn provide(packages: &[(&str, &str)], no_packages: bool) -> Result<()> {
    if !no_packages {
        return packages::ensure(packages).map(drop);
    }
    let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    Err(Error::Missing {
        what: format!("{} is missing or does not work", names.join(" or ")),
        hint: format!("apt-get install {}", names.join(" ")),
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(Error::file("copy", from))
}

/// Which Python this is: an environment belongs to one.
fn python() -> Result<String> {
    process::read(Command::new("python3").arg("--version"), ASK)
}

fn can_make_environments() -> bool {
    answers(Command::new("python3").args(["-c", "import ensurepip, venv"]))
}

fn answers(command: &mut Command) -> bool {
    process::capture(command, ASK).is_ok_and(|captured| captured.status.success())
}

/// Node's major version; `None` where there is none.
fn node() -> Option<u32> {
    let captured = process::capture(Command::new("node").arg("--version"), ASK).ok()?;
    major(&captured.stdout)
}

/// The first number of a version such as `v18.20.4`.
fn major(version: &str) -> Option<u32> {
    version.trim().trim_start_matches('v').split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_node_is_its_first_number() {
        assert_eq!(major("v18.20.4\n"), Some(18));
        assert_eq!(major("v20.0.0-nightly"), Some(20));
        assert_eq!(major("command not found"), None);
    }

    #[test]
    fn without_packages_the_command_to_run_is_said() {
        let error = provide(JAVASCRIPT, true).unwrap_err();
        assert_eq!(error.hint(), Some("apt-get install nodejs npm"));
    }
}
