//! `cargo xtask test`: every test, with everything they need.
//!
//! Tests find what the set-up made by variables, so that they run as well under plain `cargo test`.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::arguments::SetupOptions;
use crate::error::Result;
use crate::layout::{self, Layout};
use crate::output;
use crate::process;
use crate::setup::{self, Products};

/// Longest time for building and running all tests; the runner has its own, shorter limit for each test.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Sets up and runs the tests, those of the plugins first. The runner's closing line is the last thing written.
///
/// # Errors
/// [`crate::error::Error::Missing`] without root; those of the set-up; [`crate::error::Error::Command`] when a test fails.
pub fn run(layout: &Layout, options: &SetupOptions, filters: &[String]) -> Result<()> {
    setup::require_root("test")?;
    let products = setup::run(layout, options)?;
    let tools = setup::test_tools(layout, options)?;
    let programs = setup::programs(layout, options)?;
    let runner = if has_nextest() { Runner::Nextest } else { Runner::Cargo };
    output::note("xtask: tests of the plugins");
    // In a directory of their own: another workspace's dependencies have other versions and features.
    let mut plugins = runner.command(filters);
    plugins.current_dir(layout.root.join("plugins")).env("CARGO_TARGET_DIR", layout.target.join("plugins/native"));
    process::run(&mut plugins, LIMIT)?;

    output::note("xtask: tests of the workspace");
    let mut workspace = runner.command(filters);
    workspace.current_dir(&layout.root);
    provide(&mut workspace, &products);
    workspace.env("OSTLER_TEST_SCHEMATHESIS", &tools.schemathesis);
    workspace.env("OSTLER_TEST_NODE_MODULES", &tools.node_modules);
    workspace.env("OSTLER_TEST_PROGRAMS", &programs);
    process::run(&mut workspace, LIMIT)
}

/// Tells a test or benchmark program where things are.
pub fn provide(command: &mut Command, products: &Products) {
    command
        .env("OSTLER_BIN", &products.ostler)
        .env("OSTLER_POLICY_WASM", &products.policy)
        .env("OSTLER_TEST_IMAGE", &products.image)
        .stdin(Stdio::null());
}

/// A program that runs tests.
#[derive(Clone, Copy, Debug)]
enum Runner {
    /// `cargo nextest`: every test in a process of its own.
    Nextest,
    /// `cargo test`.
    Cargo,
}

impl Runner {
    fn command(self, filters: &[String]) -> Command {
        let mut command = layout::cargo();
        match self {
            // A filter may match no test of one of the two workspaces.
            Self::Nextest => command.args(["nextest", "run", "--workspace", "--no-tests=pass"]).args(filters),
            Self::Cargo => command.args(["test", "--workspace", "--no-fail-fast", "--"]).args(filters),
        };
        command
    }
}

fn has_nextest() -> bool {
    let mut version = layout::cargo();
    let captured = process::capture(version.args(["nextest", "--version"]), Duration::from_secs(60));
    captured.is_ok_and(|captured| captured.status.success())
}
