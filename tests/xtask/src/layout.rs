//! Where things are: the repository, cargo's target directory, the user's cache folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::json;
use crate::process;

/// The directories that every task works with; all of them absolute.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Root of the repository.
    pub root: PathBuf,
    /// Cargo's target directory of the main workspace.
    pub target: PathBuf,
    /// Ostler's part of the user's cache folder: images survive `cargo clean` here.
    pub cache: PathBuf,
}

impl Layout {
    /// Finds them.
    ///
    /// # Errors
    /// When this is not run inside the repository, or cargo does not answer.
    pub fn find() -> Result<Self> {
        let root = repository_root()?;
        let mut metadata = cargo();
        metadata.current_dir(&root).args(["metadata", "--no-deps", "--format-version=1", "--quiet"]);
        let text = process::read(&mut metadata, Duration::from_secs(120))?;
        let target = json::parse(&text)
            .ok()
            .and_then(|value| value.text("target_directory").map(PathBuf::from))
            .ok_or_else(|| Error::Malformed { what: "cargo metadata".into(), problem: "no target directory".into() })?;
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::home_dir().map(|home| home.join(".cache")))
            .ok_or_else(|| Error::Missing { what: "no cache folder".into(), hint: "set HOME".into() })?
            .join("ostler");
        Ok(Self { root, target, cache })
    }

    /// A directory for logs and stamps of this crate, made when it is not there.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf> {
        make_directory(&self.target.join("xtask"))
    }

    /// The host's binary in the profile that tests and the demo use.
    pub fn ostler(&self) -> PathBuf {
        self.target.join("debug/ostler")
    }
}

/// Makes a directory and its parents.
///
/// # Errors
/// [`Error::File`] when it cannot be made.
pub fn make_directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    Ok(path.to_owned())
}

/// Cargo, in the toolchain that runs this, without the variables that `cargo run` sets for this program: they would
/// differ from those of a plain `cargo build` and some build scripts would run again.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command.env_remove("CARGO_PRIMARY_PACKAGE").env_remove("CARGO_CRATE_NAME");
    command
}

fn repository_root() -> Result<PathBuf> {
    let start = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).map_or_else(env::current_dir, Ok);
    let start = start.map_err(Error::file("find", "."))?;
    let is_root = |directory: &&Path| directory.join("tests/xtask/Cargo.toml").is_file();
    start.ancestors().find(is_root).map(Path::to_owned).ok_or_else(|| Error::Missing {
        what: format!("{} is not inside the repository of Ostler", start.display()),
        hint: "run `cargo xtask` in a clone of it".into(),
    })
}
