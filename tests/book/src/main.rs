//! Builds the book for people: `cargo xtask book`, or `cargo run -p ostler-book -- FOLDER`.

use std::path::{Path, PathBuf};

use anyhow::Result;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let to = std::env::args_os().nth(1).map_or_else(|| root.join("target/book"), PathBuf::from);
    ostler_book::build(&root, &to)
}
