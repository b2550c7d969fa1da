//! Debian packages: which are missing, and their installation.
//!
//! Only what is missing is installed, and it is named before. Whoever is not root is asked through sudo where there is
//! one; otherwise the exact command is printed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::output::{self, Outcome};
use crate::process;

/// What building, testing and the demo need, and what for.
pub const BASE: &[(&str, &str)] = &[
    ("ca-certificates", "the certificates that the host trusts"),
    ("gcc", "links Rust and builds SQLite"),
    ("libc6-dev", "the C library, also as an archive: the guest is static"),
    ("libseccomp-dev", "libcontainer installs seccomp filters with it"),
    ("pkg-config", "finds libseccomp"),
    ("git", "bare repositories of the built-in forge, and the demo"),
    ("python3", "the demo's program and its tests"),
    ("mmdebstrap", "makes the base image"),
    ("nftables", "redirects a sandbox's connections to its door"),
    ("runc", "the benchmark's peer"),
    ("uidmap", "sandboxes of an ordinary user's host"),
    ("busybox-static", "a root file system for small tests"),
];

/// What making the package needs besides.
pub const PACKAGE: &[(&str, &str)] =
    &[("binutils", "takes out what only a debugger wants"), ("dpkg-dev", "finds what the program depends on")];

/// What the tests need besides.
pub const TESTS: &[(&str, &str)] = &[
    ("dpkg-dev", "makes the package that is tested"),
    ("systemd", "checks the unit of the service"),
    ("util-linux", "starts the installed program with what the unit leaves it"),
];

/// Longest time for one run of apt-get.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Installs those of the packages that are missing.
///
/// # Errors
/// [`Error::Missing`] with the command to run when this may not install; [`Error::Command`] when apt-get fails.
pub fn ensure(packages: &[(&str, &str)]) -> Result<Outcome> {
    let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    let missing = missing(&names)?;
    if missing.is_empty() {
        return Ok(Outcome::Fresh);
    }
    for (name, purpose) in packages.iter().filter(|(name, _)| missing.contains(name)) {
        output::note(&format!("  missing: {name} ({purpose})"));
    }
    let install = [&["--yes", "--no-install-recommends", "install"][..], &missing].concat();
    let escalation = escalation().ok_or_else(|| Error::Missing {
        what: format!("{} Debian packages are missing, and installing them needs root", missing.len()),
        hint: format!("as root: apt-get update && apt-get {}", install.join(" ")),
    })?;

    // A machine whose lists know the packages needs no update; lists that point to versions which the mirror no
    // longer has show themselves in the installation.
    let simulated = [&["--simulate"][..], &install].concat();
    let known = process::capture(&mut apt_get(None, &simulated), LIMIT)?.status.success();
    if !known {
        process::run(&mut apt_get(escalation, &["update", "--quiet"]), LIMIT)?;
    }
    let installed = process::run(&mut apt_get(escalation, &install), LIMIT);
    if installed.is_err() && known {
        output::note("  the package lists may be old: updating them, then once more");
        process::run(&mut apt_get(escalation, &["update", "--quiet"]), LIMIT)?;
        process::run(&mut apt_get(escalation, &install), LIMIT)?;
    } else {
        installed?;
    }
    Ok(Outcome::Done(format!("installed {}", missing.join(" "))))
}

/// Those of the packages that are not installed.
///
/// # Errors
/// [`Error::Missing`] where there is no dpkg.
pub fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Abbrev}\n"]).args(names);
    let Ok(captured) = process::capture(&mut query, Duration::from_secs(60)) else {
        return Err(Error::Missing {
            what: "this is not a Debian system (there is no dpkg-query)".to_owned(),
            hint: format!("install the counterparts of `{}`, then pass --no-packages", names.join(" ")),
        });
    };
    // A name that dpkg never heard of makes it fail; what it says about the others is right nevertheless.
    let installed = installed(&captured.stdout);
    Ok(names.iter().copied().filter(|name| !installed.contains(name)).collect())
}

/// The installed packages in lines such as `gcc ii `.
fn installed(listing: &str) -> Vec<&str> {
    let lines = listing.lines().filter_map(|line| line.split_once(' '));
    // The second letter is the state, the first what is wanted: `hi` is installed and held.
    lines.filter(|(_, status)| status.as_bytes().get(1) == Some(&b'i')).map(|(name, _)| name).collect()
}

/// Whether this process is root.
fn is_root() -> bool {
    let effective = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.to_owned();
        line.split_whitespace().nth(1).map(|uid| uid == "0")
    };
    fs::read_to_string("/proc/self/status").ok().and_then(effective).unwrap_or(false)
}

/// Refuses a task that makes sandboxes where this process is not root. sudo looks for programs in a path of its own, so
/// the hint goes by `env`.
///
/// # Errors
/// [`Error::Missing`] with the command to run.
pub fn require_root(task: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    Err(Error::Missing {
        what: format!("`cargo xtask {task}` makes sandboxes, which needs root"),
        hint: format!("sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {task}"),
    })
}

/// How to become root: not at all (`Some(None)`), by a program, or there is no way.
#[expect(clippy::option_option, reason = "no way, no need and a way are three things, used once")]
fn escalation() -> Option<Option<&'static str>> {
    if is_root() {
        return Some(None);
    }
    let exists = |path: &&str| Path::new(path).exists();
    ["/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo"].into_iter().find(exists).map(Some)
}

fn apt_get(escalation: Option<&str>, arguments: &[&str]) -> Command {
    let settings = ["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"];
    let mut command = match escalation {
        // sudo clears the environment, so the settings travel as arguments of env.
        Some(program) => {
            let mut command = Command::new(program);
            command.arg("env").args(settings).arg("apt-get");
            command
        }
        None => {
            let mut command = Command::new("env");
            command.args(settings).arg("apt-get").stdin(Stdio::null());
            command
        }
    };
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_in_the_installed_state_count() {
        let listing = "gcc ii \nrunc un \nnftables rc \nlibseccomp-dev hi \ngit iU \n\nstrange\n";
        assert_eq!(installed(listing), ["gcc", "libseccomp-dev"]);
    }

    #[test]
    fn a_package_that_nobody_heard_of_is_missing_and_an_essential_one_is_not() {
        // `dpkg` itself is there wherever this test can run on Debian.
        assert_eq!(missing(&["dpkg", "no-such-package-by-this-name"]).unwrap(), ["no-such-package-by-this-name"]);
    }
}
