//! For tests: pages of the book that are made by code stay what the code says.
//!
//! A page is written again by running its test with `UPDATE_DOCS` set; otherwise the test compares.

use std::fs;
use std::path::Path;

/// Set when pages are to be written instead of compared.
const UPDATE: &str = "UPDATE_DOCS";

/// Compares a page below `docs/src` with `text`, or writes it.
pub(crate) fn assert_current(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src").join(page);
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).position(|(found, wanted)| found != wanted);
    let line = differs.unwrap_or_else(|| found.lines().count().min(text.lines().count()));
    assert!(
        found == text,
        "docs/src/{page} is not what the code says, from line {}:\n  page: {}\n  code: {}\n\
         write it again with: {UPDATE}=1 cargo nextest run --package ostler generated_page",
        line + 1,
        found.lines().nth(line).unwrap_or("(its end)"),
        text.lines().nth(line).unwrap_or("(its end)"),
    );
}
