//! `cargo xtask torture`: the long form of the tests that are rough with a part of the product.
//!
//! It runs the build that the tests run, with its assertions: what it finds is a defect, not a figure.

use std::process::Command;
use std::time::Duration;

use crate::arguments::SetupOptions;
use crate::error::Result;
use crate::layout::Layout;
use crate::process;
use crate::setup;
use crate::test;

/// Longest time for one suite.
const RUN_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// Sets up, which builds the program too, and runs; `arguments` go to the torture program.
///
/// # Errors
/// Those of the set-up; [`crate::error::Error::Command`] when something hangs, is lost or is left.
pub fn run(layout: &Layout, options: &SetupOptions, arguments: &[String]) -> Result<()> {
    setup::require_root("torture")?;
    let products = setup::run(layout, options)?;
    let mut torture = Command::new(layout.target.join("debug/ostler-torture"));
    torture.args(arguments);
    test::provide(&mut torture, &products);
    process::run(&mut torture, RUN_LIMIT)
}
