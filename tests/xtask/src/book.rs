//! `cargo xtask book`: the documentation as web pages.
//!
//! A program of its own builds it, with a library that nothing else needs; this crate has no dependencies.

use std::time::Duration;

use crate::error::Result;
use crate::layout::{self, Layout};
use crate::output;
use crate::process;

/// Longest time for building what builds the book, and the book.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Builds the book and says where it is.
///
/// # Errors
/// [`crate::error::Error::Command`] when the build fails.
pub fn run(layout: &Layout) -> Result<()> {
    let folder = layout.target.join("book");
    let mut build = layout::cargo();
    build.current_dir(&layout.root).args(["run", "--quiet", "--package", "ostler-book", "--"]).arg(&folder);
    process::run(&mut build, LIMIT)?;
    output::say(&folder.join("index.html").display().to_string());
    Ok(())
}
