//! The host: one cargo build of every binary in the workspace, which also builds the guest.
//!
//! The whole workspace, never single packages, in the one profile that tests use: cargo then picks the same features
//! for every dependency and builds nothing twice. `--examples` is part of that: it makes cargo count the features that
//! development dependencies ask for, as it does when it builds tests. Without it num-traits, and with it libcontainer,
//! would be built once for the host and once more for the tests.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::Outcome;
use crate::process;

/// Longest time for a cold build; two slow cores need a third of it.
pub const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Longest time for a build in another profile: `release` optimises every dependency.
const RELEASE_LIMIT: Duration = Duration::from_secs(90 * 60);

/// Builds the host and returns the path of its binary.
///
/// # Errors
/// [`Error::Command`] when cargo fails; [`Error::Missing`] when the binary is not where it should be.
pub fn build(layout: &Layout) -> Result<(PathBuf, Outcome)> {
    let mut build = layout::cargo();
    build.current_dir(&layout.root).args(["build", "--workspace", "--bins", "--examples"]);
    // Whoever wants to see a pull request need not wait for what builds the book.
    build.args(["--exclude", "ostler-book"]);
    built(&mut build, BUILD_LIMIT, layout.ostler())
}

/// Builds the binaries in a profile of cargo, such as `release`, and returns the path of the host's.
///
/// # Errors
/// As [`build`].
pub fn build_in_profile(layout: &Layout, profile: &str) -> Result<(PathBuf, Outcome)> {
    if profile == "dev" {
        return build(layout);
    }
    let mut build = layout::cargo();
    build.current_dir(&layout.root).args(["build", "--workspace", "--bins", "--profile", profile]);
    built(&mut build, RELEASE_LIMIT, layout.target.join(profile).join("ostler"))
}

fn built(build: &mut Command, limit: Duration, ostler: PathBuf) -> Result<(PathBuf, Outcome)> {
    // Cargo shows its own progress and knows best what is up to date.
    process::run(build, limit)?;
    if !ostler.is_file() {
        return Err(Error::Missing {
            what: format!("cargo built no {}", ostler.display()),
            hint: "unset CARGO_BUILD_TARGET and build.target: the tests use the machine's own target".to_owned(),
        });
    }
    Ok((ostler, Outcome::Done(String::new())))
}
