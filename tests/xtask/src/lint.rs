//! `cargo xtask lint`: formatting and clippy, warnings denied.
//!
//! Clippy takes the compiler's place for the workspace's own crates in an ordinary build
//! (`RUSTC_WORKSPACE_WRAPPER`). Their dependencies are the ones that tests and the demo use, and nothing is built
//! twice; `cargo clippy` would check every dependency once more. `.ci/run` goes one step further and runs the tests
//! from this very build.

use std::process::Command;
use std::time::Duration;

use crate::error::Result;
use crate::layout::{self, Layout};
use crate::output;
use crate::process;

const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Checks the formatting of both workspaces, then lints them.
///
/// # Errors
/// [`crate::error::Error::Command`] when something is not as it should be.
pub fn run(layout: &Layout) -> Result<()> {
    let plugins = layout.root.join("plugins");
    output::note("xtask: formatting");
    for directory in [&layout.root, &plugins] {
        process::run(layout::cargo().current_dir(directory).args(["fmt", "--all", "--check"]), LIMIT)?;
    }
    output::note("xtask: clippy");
    process::run(denying_warnings(layout::cargo().current_dir(&layout.root)), LIMIT)?;
    let mut cargo = layout::cargo();
    cargo.current_dir(&plugins).env("CARGO_TARGET_DIR", layout.target.join("plugins/native"));
    process::run(denying_warnings(&mut cargo), LIMIT)
}

fn denying_warnings(cargo: &mut Command) -> &mut Command {
    cargo
        .args(["build", "--workspace", "--all-targets"])
        .env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver")
        // What `cargo clippy -- -D warnings` passes on.
        .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__")
}
