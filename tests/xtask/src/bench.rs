//! `cargo xtask bench`: builds the benchmark program in the release profile and runs it.
//!
//! What is measured is what `cargo xtask package` installs.

use std::process::Command;
use std::time::Duration;

use crate::arguments::SetupOptions;
use crate::error::Result;
use crate::layout::Layout;
use crate::output;
use crate::process;
use crate::setup;
use crate::test;

/// Longest time for the measurements.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Sets up, builds and measures; `arguments` go to the benchmark program.
///
/// # Errors
/// Those of the set-up; [`crate::error::Error::Command`] when the build or a measurement fails.
pub fn run(layout: &Layout, options: &SetupOptions, arguments: &[String]) -> Result<()> {
    setup::require_root("bench")?;
    let mut products = setup::run(layout, options)?;
    products.ostler = output::step("release build", || setup::build_in_profile(layout, "release"))?;
    let mut bench = Command::new(layout.target.join("release/ostler-bench"));
    bench.args(arguments);
    test::provide(&mut bench, &products);
    process::run(&mut bench, RUN_LIMIT)
}
