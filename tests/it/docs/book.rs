//! The book builds, every link of every Markdown file leads somewhere, no page is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use ostler_book::Page;

use super::root;

const BOOK: &str = "docs/src";
const SUMMARY: &str = "docs/src/SUMMARY.md";

fn pages() -> Result<BTreeMap<PathBuf, Page>> {
    Ok(ostler_book::pages(&root())?.into_iter().collect())
}

/// A path without `.` and `..`; `None` where it leaves the folder that it starts from.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !normal.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}

fn is_elsewhere(target: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme))
}

/// What is wrong with a link of the page at `from`, if something is.
fn problem(from: &Path, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<&'static str> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = from.parent().unwrap_or(Path::new(""));
    let path = if file.is_empty() { Some(from.to_owned()) } else { normal(&folder.join(file)) };
    let Some(path) = path.filter(|path| root().join(path).exists()) else { return Some("there is no such file") };
    if from.starts_with(BOOK) && !path.starts_with(BOOK) {
        return Some("the book does not hold that file");
    }
    let page = pages.get(&path);
    match anchor {
        Some(anchor) if !page.is_some_and(|page| page.anchors.iter().any(|known| known == anchor)) => {
            Some("there is no such heading")
        }
        _ => None,
    }
}

#[test]
fn no_link_is_dead() -> Result<()> {
    let pages = pages()?;
    let mut dead = Vec::new();
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !is_elsewhere(&link.target)) {
            if let Some(problem) = problem(path, &link.target, &pages) {
                dead.push(format!("{}:{}: {}: {problem}", path.display(), link.line, link.target));
            }
        }
    }
    assert_eq!(dead, Vec::<String>::new());
    Ok(())
}

#[test]
fn every_page_is_in_the_summary_once() -> Result<()> {
    let pages = pages()?;
    let summary = pages.get(Path::new(SUMMARY)).context("the summary")?;
    let named: Vec<PathBuf> = summary.links.iter().map(|link| Path::new(BOOK).join(&link.target)).collect();
    let written: BTreeSet<&PathBuf> =
        pages.keys().filter(|path| path.starts_with(BOOK) && !path.ends_with("SUMMARY.md")).collect();
    let once: BTreeSet<&PathBuf> = named.iter().collect();
    let differing: Vec<_> = once.symmetric_difference(&written).collect();
    assert_eq!(differing, Vec::<&&PathBuf>::new(), "a page is not in the summary, or only there");
    assert_eq!(named.len(), once.len(), "a page stands in the summary twice");
    Ok(())
}

#[test]
fn every_block_of_code_says_its_language() -> Result<()> {
    let mut silent = Vec::new();
    for (path, page) in pages()? {
        let fences = page.fences.iter().filter(|fence| fence.info.is_empty());
        silent.extend(fences.map(|fence| format!("{}:{}", path.display(), fence.line)));
    }
    assert_eq!(silent, Vec::<String>::new());
    Ok(())
}

/// Addresses that a built page wants to load or to lead to.
fn references(html: &str) -> Result<Vec<String>> {
    let pattern = regex::Regex::new(r#"\s(?:href|src)="([^"]*)""#)?;
    Ok(pattern.captures_iter(html).map(|found| found[1].to_owned()).collect())
}

#[test]
fn the_book_builds_and_nothing_in_it_is_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    ostler_book::build(&root(), folder.path())?;
    let mut missing = Vec::new();
    for (path, page) in pages()? {
        let Ok(inside) = path.strip_prefix(BOOK) else { continue };
        if path.ends_with("SUMMARY.md") {
            continue;
        }
        let built = folder.path().join(inside).with_extension("html");
        let html = std::fs::read_to_string(&built).with_context(|| format!("read {}", built.display()))?;
        for anchor in &page.anchors {
            if !html.contains(&format!("id=\"{anchor}\"")) {
                missing.push(format!("{}: the heading #{anchor}", path.display()));
            }
        }
        let here = inside.parent().unwrap_or(Path::new(""));
        for reference in references(&html)?.iter().filter(|reference| !is_elsewhere(reference)) {
            let file = reference.split(['#', '?']).next().unwrap_or_default();
            let there = normal(&here.join(file)).is_some_and(|file| folder.path().join(file).exists());
            if !file.is_empty() && !there {
                missing.push(format!("{}: {reference}", path.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    Ok(())
}
