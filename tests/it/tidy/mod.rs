//! How the code is written: sizes, layers, headers. The rules are in `docs/src/architecture.md`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Longest file, in lines of production code.
const MAX_LINES: usize = 600;

/// Folders of `host/src`, from the lowest layer to the highest. A module may use those before it and its neighbours
/// within the braces.
const LAYERS: &[&[&str]] = &[
    &["config", "egress", "http", "pages", "sse", "telemetry"],
    &["store", "forge", "plugins"],
    &["agent", "door"],
    &["workspace"],
    &["session"],
    &["api"],
    &["cli", "app", "doctor"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of ours below a folder.
fn sources(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut front = vec![folder.to_owned()];
    while let Some(folder) = front.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !name.starts_with('.') && name != "target" {
                front.push(path);
            } else if name.ends_with(".rs") {
                found.push((path.clone(), fs::read_to_string(&path)?));
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no sources below {}", folder.display());
    Ok(found)
}

fn all_sources() -> Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for folder in ["host", "sandbox-runtime", "plugins", "tests"] {
        all.extend(sources(&root().join(folder))?);
    }
    Ok(all)
}

/// The part of a file before its unit tests.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn every_file_says_first_what_it_is_for() -> Result<()> {
    let silent: Vec<PathBuf> =
        all_sources()?.into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn no_file_is_longer_than_one_idea() -> Result<()> {
    let long: Vec<(PathBuf, usize)> = all_sources()?
        .into_iter()
        .map(|(path, text)| (path, production(&text).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert_eq!(long, Vec::new());
    Ok(())
}

#[test]
fn imports_in_the_host_follow_the_layers() -> Result<()> {
    let folder = root().join("host/src");
    let rank = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let pattern = regex::Regex::new(r"\bcrate::([a-z_]+)")?;
    let mut wrong = Vec::new();
    for (path, text) in sources(&folder)? {
        let relative = path.strip_prefix(&folder)?;
        let first = relative.components().next().context("a module")?;
        let own = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        if own == "lib" || own == "main" {
            continue;
        }
        let own_rank = rank(&own).with_context(|| format!("`{own}` is missing in LAYERS"))?;
        for found in pattern.captures_iter(production(&text)) {
            let used = &found[1];
            if used != own && rank(used).is_some_and(|used| used > own_rank) {
                wrong.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_machine_is_pure() -> Result<()> {
    for file in ["machine.rs", "state.rs", "fold.rs"] {
        let text = fs::read_to_string(root().join("host/src/session").join(file))?;
        for word in ["async ", "tokio", "std::time", "std::fs", "generate()", "rand::"] {
            assert!(!production(&text).contains(word), "{file} contains `{word}`");
        }
    }
    Ok(())
}

#[test]
fn sql_wit_and_libcontainer_stay_in_their_rooms() -> Result<()> {
    let rooms = [
        ("rusqlite", "host/src/store/"),
        ("wasmtime::", "host/src/plugins/"),
        ("libcontainer::", "sandbox-runtime/src/"),
    ];
    for (word, room) in rooms {
        let room = root().join(room);
        for (path, text) in all_sources()? {
            let here = path.starts_with(&room) || path.ends_with("it/tidy/mod.rs");
            assert!(here || !production(&text).contains(word), "{} uses {word}", path.display());
        }
    }
    Ok(())
}

#[test]
fn the_architecture_page_names_every_module() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/src/architecture.md"))?;
    for folder in ["host/src", "sandbox-runtime/src", "plugins", "tests"] {
        for entry in fs::read_dir(root().join(folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.file_type()?.is_dir() && !name.starts_with('.') && name != "target";
            let is_file = name.ends_with(".rs") && !["lib.rs", "main.rs"].contains(&name.as_str());
            if is_folder || is_file {
                let name = name.trim_end_matches(".rs");
                assert!(
                    page.contains(&format!("`{name}`")),
                    "docs/src/architecture.md does not name `{name}` of {folder}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_readme_is_short() -> Result<()> {
    let lines = fs::read_to_string(root().join("README.md"))?.lines().count();
    assert!(lines < 150, "{lines} lines");
    Ok(())
}
