//! The book in `docs/`: building it, and reading Markdown with the parser that builds it.
//!
//! Owns what a link, a heading's anchor and a block of code are. What must hold of them is decided by the tests in
//! `tests/it/docs`.

mod markdown;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mdbook_driver::MDBook;

pub use markdown::{Fence, Link, Page};

/// Builds the book of the repository at `root` into the folder `to`, which is made where it is missing.
///
/// # Errors
/// When the summary or the configuration is wrong, a page of the summary is missing, or `to` cannot be written.
pub fn build(root: &Path, to: &Path) -> Result<()> {
    let folder = root.join("docs");
    let mut book = MDBook::load(&folder).with_context(|| format!("load the book in {}", folder.display()))?;
    book.config.build.build_dir = std::path::absolute(to).context("find the folder for the book")?;
    // A page that the summary names and that is not there is a mistake, not a wish.
    book.config.build.create_missing = false;
    book.build().with_context(|| format!("build the book into {}", to.display()))
}

/// Every Markdown file of the repository at `root`, by its path from there, in order.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn pages(root: &Path) -> Result<Vec<(PathBuf, Page)>> {
    let mut pages = Vec::new();
    let mut front = vec![root.to_owned()];
    while let Some(folder) = front.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                // Not ours: what is built, what git keeps, what package managers bring.
                if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                    front.push(path);
                }
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                pages.push((path.strip_prefix(root)?.to_owned(), Page::read(&text)));
            }
        }
    }
    pages.sort_by(|a, b| a.0.cmp(&b.0));
    anyhow::ensure!(!pages.is_empty(), "no Markdown below {}", root.display());
    Ok(pages)
}
