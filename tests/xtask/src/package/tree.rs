//! Which files are in the package, from where, with which mode.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{About, Built, SHORT, tool};
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::process;

/// Files that are in the repository as they are in the package: there, here, mode.
const FILES: &[(&str, &str, u32)] = &[
    ("host/debian/ostler.service", "usr/lib/systemd/system/ostler.service", 0o644),
    ("host/debian/config.toml", "etc/ostler/config.toml", 0o644),
    ("host/debian/environment", "etc/ostler/environment", 0o600),
    ("plugins/policy/rules.toml", "etc/ostler/policy/rules.toml", 0o644),
    ("plugins/policy/plugin.toml", "usr/lib/ostler/plugins/policy/plugin.toml", 0o644),
    ("images/base/packages.txt", "usr/share/ostler/images/base/packages.txt", 0o644),
    ("images/base/dpkg.conf", "usr/share/ostler/images/base/dpkg.conf", 0o644),
    ("images/base/hooks/customize10-neutral.sh", "usr/share/ostler/images/base/hooks/customize10-neutral.sh", 0o755),
    ("examples/config.toml", "usr/share/doc/ostler/examples/config.toml", 0o644),
    ("host/debian/README.Debian", "usr/share/doc/ostler/README.Debian", 0o644),
    ("host/debian/lintian-overrides", "usr/share/lintian/overrides/ostler", 0o644),
];

/// A plugin finds its rules beside itself; the operator's are in /etc.
const RULES_LINK: (&str, &str) = ("usr/lib/ostler/plugins/policy/rules.toml", "/etc/ostler/policy/rules.toml");

/// Files that Debian wants compressed, or folders of them.
const COMPRESSED: &[&str] =
    &["usr/share/doc/ostler/changelog.Debian", "usr/share/doc/ostler/third-party-licenses.txt", "usr/share/man"];

/// Puts everything into `root` that is not made of something else.
///
/// # Errors
/// [`Error::File`]; [`Error::Command`] when the program cannot be stripped.
pub fn fill(layout: &Layout, root: &Path, built: &Built, about: &About) -> Result<()> {
    let program = root.join("usr/bin/ostler");
    install(&built.binary, &program, 0o755)?;
    // What a debugger wants is not installed; the build keeps it.
    let mut strip = Command::new("strip");
    tool(strip.args(["--strip-unneeded", "--remove-section=.comment"]).arg(&program), "binutils", SHORT)?;
    install(&built.policy, &root.join("usr/lib/ostler/plugins/policy/policy.wasm"), 0o644)?;
    for (source, target, mode) in FILES {
        install(&layout.root.join(source), &root.join(target), *mode)?;
    }
    let (link, target) = RULES_LINK;
    std::os::unix::fs::symlink(target, root.join(link)).map_err(Error::file("link", link))?;
    write(&root.join("usr/share/doc/ostler/changelog.Debian"), &changelog(about)?)
}

fn changelog(about: &About) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email"]).arg(format!("--date=@{}", about.epoch));
    let date = process::read(date.env("LC_ALL", "C"), SHORT)?;
    let About { version, maintainer, .. } = about;
    let text = "A package of this version, made by `cargo xtask package`.";
    Ok(format!("ostler ({version}) unstable; urgency=medium\n\n  * {text}\n\n -- {maintainer}  {}\n", date.trim()))
}

/// Compresses what Debian wants compressed, without names and times.
///
/// # Errors
/// [`Error::Command`] when gzip fails.
pub fn compress(root: &Path) -> Result<()> {
    for path in COMPRESSED.iter().map(|path| root.join(path)).filter(|path| path.exists()) {
        process::read(Command::new("gzip").args(["--best", "--no-name", "--recursive"]).arg(&path), SHORT)?;
    }
    Ok(())
}

/// Copies a file and makes the folders above it, whatever this process's umask is.
fn install(source: &Path, target: &Path, mode: u32) -> Result<()> {
    make_parents(target)?;
    fs::copy(source, target).map_err(Error::file("copy", source))?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(Error::file("set the mode of", target))
}

/// Writes a file of mode 0644 and makes the folders above it.
///
/// # Errors
/// [`Error::File`].
pub fn write(target: &Path, text: &str) -> Result<()> {
    make_parents(target)?;
    fs::write(target, text).map_err(Error::file("write", target))?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o644)).map_err(Error::file("set the mode of", target))
}

fn make_parents(target: &Path) -> Result<()> {
    let missing: Vec<&Path> = target.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        layout::make_directory(folder)?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, mode).map_err(Error::file("set the mode of", folder))?;
    }
    Ok(())
}
