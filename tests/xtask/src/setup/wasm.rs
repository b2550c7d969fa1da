//! A compiler for `wasm32-unknown-unknown`.
//!
//! ```text
//! target in the Rust toolchain? ──yes──► use it
//!   │no
//! Debian's packages installed? ──yes──► use them
//!   │no
//! rustup target add, at most a minute ──works──► use it
//!   │fails
//! apt-get install Debian's packages ──works──► use them
//!   │fails
//! say what to do
//! ```
//!
//! Debian ships a recent compiler for web browsers (`rustc-web`) with the sources of the standard library
//! (`rust-web-src`), which cargo builds for the target itself. That takes a minute, once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::packages;
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::{self, Outcome};
use crate::process;

/// The target of every plugin.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler.
const DEBIAN: &[(&str, &str)] = &[
    ("rustc-web", "Debian's Rust compiler with a WebAssembly back end"),
    ("cargo-web", "the cargo that fits it"),
    ("rust-web-src", "sources of the standard library, to build it for the target"),
    ("libstd-rust-web-dev", "the standard library for the build scripts of plugins"),
];

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Longest time for `rustup target add`; with a way to the server it takes seconds.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// Who builds the plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The Rust toolchain itself.
    Toolchain,
    /// Debian's compiler, linking with this `rust-lld`.
    Debian {
        /// The linker that the Rust toolchain ships.
        linker: PathBuf,
    },
}

impl Builder {
    /// `cargo build` for the target, without anything about packages or directories.
    pub fn cargo_build(&self) -> Command {
        let mut command = match self {
            Self::Toolchain => layout::cargo(),
            Self::Debian { linker } => {
                let mut command = Command::new(DEBIAN_CARGO);
                command
                    .env("RUSTC", DEBIAN_RUSTC)
                    // `-Zbuild-std` is not stable; the variable allows it on a released compiler.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("LD_LIBRARY_PATH")
                    .env_remove("CARGO");
                command
            }
        };
        // A linter in the place of the compiler would be the other toolchain's.
        command.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTC_WRAPPER").env_remove("RUSTFLAGS");
        command.args(["build", "--target", TARGET]);
        if matches!(self, Self::Debian { .. }) {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        command
    }

    /// A word for stamps and directories: their results must not mix.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Toolchain => "rust",
            Self::Debian { .. } => "debian",
        }
    }
}

/// Finds or installs a compiler for the target.
///
/// # Errors
/// [`Error::Missing`] with what to do when there is none and none can be installed.
pub fn prepare(layout: &Layout, no_packages: bool) -> Result<(Builder, Outcome)> {
    let sysroot = sysroot()?;
    match env::var("OSTLER_WASM").as_deref() {
        Ok("rust") => return from_rustup(layout, &sysroot).ok_or_else(|| hopeless("rustup could not add it")),
        Ok("debian") => return from_debian(&sysroot, no_packages),
        Ok(other) => {
            return Err(Error::Usage { problem: format!("OSTLER_WASM is `{other}`; it can be `rust` or `debian`") });
        }
        Err(_) => {}
    }
    if has_target(&sysroot) {
        return Ok((Builder::Toolchain, Outcome::Fresh));
    }
    let debian: Vec<&str> = DEBIAN.iter().map(|(name, _)| *name).collect();
    if packages::missing(&debian).is_ok_and(|missing| missing.is_empty()) {
        return from_debian(&sysroot, no_packages);
    }
    match from_rustup(layout, &sysroot) {
        Some(found) => Ok(found),
        None => from_debian(&sysroot, no_packages),
    }
}

fn from_rustup(layout: &Layout, sysroot: &Path) -> Option<(Builder, Outcome)> {
    if has_target(sysroot) {
        return Some((Builder::Toolchain, Outcome::Fresh));
    }
    let mut add = Command::new("rustup");
    // The repository may pin a toolchain of its own.
    add.current_dir(&layout.root).args(["target", "add", TARGET]);
    match process::capture(&mut add, RUSTUP_LIMIT) {
        Ok(_) if has_target(sysroot) => Some((Builder::Toolchain, Outcome::Done(format!("rustup added {TARGET}")))),
        Ok(captured) => {
            output::note(&format!("  rustup could not add {TARGET}: {}", process::last_lines(&captured.stderr)));
            None
        }
        Err(error) => {
            output::note(&format!("  rustup could not add {TARGET}: {error}"));
            None
        }
    }
}

fn from_debian(sysroot: &Path, no_packages: bool) -> Result<(Builder, Outcome)> {
    let installed = if no_packages {
        Outcome::Fresh
    } else {
        packages::ensure(DEBIAN)
            .map_err(|error| hopeless(&format!("Debian's compiler could not be installed: {error}")))?
    };
    for (path, package) in [(DEBIAN_RUSTC, "rustc-web"), (DEBIAN_CARGO, "cargo-web")] {
        if !Path::new(path).is_file() {
            return Err(hopeless(&format!("{path} of {package} is missing")));
        }
    }
    let linker = rust_lld(sysroot)?;
    let detail = match installed {
        Outcome::Fresh => "Debian's compiler".to_owned(),
        Outcome::Done(detail) => detail,
    };
    Ok((Builder::Debian { linker }, Outcome::Done(detail)))
}

fn hopeless(why: &str) -> Error {
    Error::Missing {
        what: format!("there is no compiler for {TARGET}: {why}"),
        hint: format!(
            "run `rustup target add {TARGET}` where the Rust toolchain's server can be reached, or install \
             rustc-web, cargo-web and rust-web-src of Debian 12 or newer with its security updates"
        ),
    }
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    let text = process::read(rustc.args(["--print", "sysroot"]), Duration::from_secs(60))?;
    Ok(PathBuf::from(text.trim()))
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

/// The linker for WebAssembly that comes with every Rust toolchain.
fn rust_lld(sysroot: &Path) -> Result<PathBuf> {
    let rustlib = sysroot.join("lib/rustlib");
    let entries = std::fs::read_dir(&rustlib).map_err(Error::file("list", &rustlib))?;
    let mut found = entries.flatten().map(|entry| entry.path().join("bin/rust-lld")).filter(|path| path.is_file());
    found.next().ok_or_else(|| Error::Missing {
        what: format!("there is no rust-lld below {}", rustlib.display()),
        hint: "use a Rust toolchain from rustup, or Debian's package lld with OSTLER_WASM=rust".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(command: &Command, name: &str) -> Option<Option<String>> {
        let found = command.get_envs().find(|(key, _)| *key == name)?;
        Some(found.1.map(|value| value.to_string_lossy().into_owned()))
    }

    #[test]
    fn debian_builds_its_own_standard_library_and_links_with_the_toolchain() {
        let command = Builder::Debian { linker: "/toolchain/rust-lld".into() }.cargo_build();
        let text = process::describe(&command);
        assert_eq!(text, "/usr/bin/cargo build --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort");
        assert_eq!(variable(&command, "RUSTC_BOOTSTRAP"), Some(Some("1".into())));
        assert_eq!(
            variable(&command, "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER"),
            Some(Some("/toolchain/rust-lld".into()))
        );
    }

    #[test]
    fn no_builder_runs_the_linter_of_the_other_toolchain() {
        for builder in [Builder::Toolchain, Builder::Debian { linker: "/x".into() }] {
            assert_eq!(variable(&builder.cargo_build(), "RUSTC_WORKSPACE_WRAPPER"), Some(None), "{builder:?}");
        }
    }
}
