//! `cargo xtask bench`: builds the benchmark program in the release profile and runs it.
//!
//! The only task that builds in that profile: what is measured is what is installed.

use std::process::Command;
use std::time::Duration;

use crate::arguments::SetupOptions;
use crate::error::Result;
use crate::layout::{self, Layout};
use crate::output::{self, Outcome};
use crate::process;
use crate::setup;
use crate::test;

/// Longest time for the release build: it optimises every dependency.
const BUILD_LIMIT: Duration = Duration::from_secs(90 * 60);

/// Longest time for the measurements.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Sets up, builds and measures; `arguments` go to the benchmark program.
///
/// # Errors
/// Those of the set-up; [`crate::error::Error::Command`] when the build or a measurement fails.
pub fn run(layout: &Layout, options: &SetupOptions, arguments: &[String]) -> Result<()> {
    setup::require_root("bench")?;
    let mut products = setup::run(layout, options)?;
    products.ostler = output::step("release build", || {
        let mut build = layout::cargo();
        build.current_dir(&layout.root);
        build.args(["build", "--release", "--workspace", "--bins"]);
        process::run(&mut build, BUILD_LIMIT)?;
        Ok((layout.target.join("release/ostler"), Outcome::Done(String::new())))
    })?;
    let mut bench = Command::new(layout.target.join("release/ostler-bench"));
    bench.args(arguments);
    test::provide(&mut bench, &products);
    process::run(&mut bench, RUN_LIMIT)
}
