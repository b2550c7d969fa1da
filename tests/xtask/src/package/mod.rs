//! `cargo xtask package`: a Debian package of the host.
//!
//! ```text
//! build (or what was built) ─► tree of files ─► what it depends on, who wrote it ─► dpkg-deb
//! ```
//!
//! What is put beside the program is data, in `host/debian`. The same sources give the same package, byte for byte, as long
//! as the compiler does: times are those of the newest commit.

mod control;
mod crates;
mod manual;
mod options;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::{self, Outcome};
use crate::process;
use crate::setup;

pub use options::{Built, PackageOptions, parse};

/// Longest time for a program that only looks at something or copies it.
const SHORT: Duration = Duration::from_secs(60);

/// Longest time for dpkg-deb; xz needs half a minute.
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What all parts of the package have to say alike.
struct About {
    /// Version of the package.
    version: String,
    /// Debian's name of the machine's architecture.
    architecture: String,
    /// `Name <address>` of who is to be asked about the package.
    maintainer: String,
    /// Seconds since 1970 of the newest commit.
    epoch: String,
}

/// Makes the package and says where it is.
///
/// # Errors
/// Those of the build; [`Error::Missing`] when something for it is not there; [`Error::Command`] when a program fails.
pub fn run(layout: &Layout, options: &PackageOptions) -> Result<()> {
    let built = match &options.built {
        Some(built) => built.clone(),
        None => build(layout, options)?,
    };
    for file in [&built.binary, &built.policy] {
        if !file.is_file() {
            let hint = "give the files that `cargo xtask setup` built".to_owned();
            return Err(Error::Missing { what: format!("there is no {}", file.display()), hint });
        }
    }
    let folder = match &options.output {
        Some(output) => layout::make_directory(output)?,
        None => layout::make_directory(&layout.target.join("package"))?,
    };
    let work = folder.join(format!("tree-{}", std::process::id()));
    let made = make(layout, options, &built, &folder, &work);
    if work.exists() {
        fs::remove_dir_all(&work).map_err(Error::file("remove", &work))?;
    }
    output::say(&made?.display().to_string());
    Ok(())
}

fn make(layout: &Layout, options: &PackageOptions, built: &Built, folder: &Path, work: &Path) -> Result<PathBuf> {
    let crates = output::step("third-party libraries", || {
        let crates = crates::read(layout)?;
        let found = Outcome::Done(format!("{} crates", crates.third_party.len()));
        Ok((crates, found))
    })?;
    let about = About {
        version: options.version.clone().unwrap_or_else(|| format!("{}-1", crates.version)),
        architecture: process::read(Command::new("dpkg").arg("--print-architecture"), SHORT)?.trim().to_owned(),
        maintainer: maintainer(layout),
        epoch: epoch(layout)?,
    };
    let root = work.join("root");
    output::step("files of the package", || {
        tree::fill(layout, &root, built, &about)?;
        crates::write(layout, &crates, &root)?;
        manual::write(&root.join("usr/bin/ostler"), &root)?;
        tree::compress(&root)?;
        Ok(((), Outcome::Done(String::new())))
    })?;
    output::step("package", || {
        control::write(layout, work, &root, &about)?;
        let package = folder.join(format!("ostler_{}_{}.deb", about.version, about.architecture));
        let mut command = Command::new("dpkg-deb");
        command.arg("--root-owner-group").env("SOURCE_DATE_EPOCH", &about.epoch);
        command.args(options.compression.iter().map(|name| format!("-Z{name}")));
        tool(command.arg("--build").arg(&root).arg(&package), "dpkg", BUILD_LIMIT)?;
        let size = fs::metadata(&package).map_err(Error::file("look at", &package))?.len();
        Ok((package, Outcome::Done(format!("version {}, {} MiB", about.version, size >> 20))))
    })
}

/// Runs a program that a Debian package brings, and returns its standard output.
fn tool(command: &mut Command, package: &str, limit: Duration) -> Result<String> {
    process::read(command, limit).map_err(|error| match error {
        Error::Start { command, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let program = command.split(' ').next().unwrap_or_default();
            let hint = format!("apt-get install {package}");
            Error::Missing { what: format!("there is no {program}, which the package is made with"), hint }
        }
        other => other,
    })
}

/// Builds the host and the plugin.
fn build(layout: &Layout, options: &PackageOptions) -> Result<Built> {
    let profile = options.profile.as_deref().unwrap_or("release");
    let (binary, policy) = setup::for_package(layout, &options.setup, profile)?;
    Ok(Built { binary, policy })
}

/// Who is to be asked about the package: from the environment, as Debian's own tools take it, else whoever git says makes
/// it, else the machine's root.
fn maintainer(layout: &Layout) -> String {
    let not_empty = |value: String| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    let value = |variable: &str, key: &str, default: &str| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&layout.root).args(["config", key]);
        let said = std::env::var(variable).ok().and_then(not_empty);
        let said = said.or_else(|| process::read(&mut git, SHORT).ok().and_then(not_empty));
        said.unwrap_or_else(|| default.to_owned())
    };
    format!("{} <{}>", value("DEBFULLNAME", "user.name", "root"), value("DEBEMAIL", "user.email", "root@localhost"))
}

/// Time of the sources: `SOURCE_DATE_EPOCH`, else that of the newest commit.
fn epoch(layout: &Layout) -> Result<String> {
    if let Some(epoch) = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|epoch| !epoch.is_empty()) {
        return Ok(epoch);
    }
    let mut log = Command::new("git");
    log.arg("-C").arg(&layout.root).args(["log", "-1", "--format=%ct"]);
    let epoch = process::read(&mut log, SHORT).map_err(|error| Error::Missing {
        what: format!("the time of the sources is not known: {error}"),
        hint: "package a git clone, or set SOURCE_DATE_EPOCH".to_owned(),
    })?;
    Ok(epoch.trim().to_owned())
}
