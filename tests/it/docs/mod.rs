//! The documentation: it builds, its links lead somewhere, its commands are run.
//!
//! What a block of code may say of itself is told in `docs/src/documentation.md`.

mod blocks;
mod book;
mod promises;
mod terminal;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
