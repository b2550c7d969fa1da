//! Which libraries are in the program, and what their licences ask for: from the metadata and the sources that Cargo has.
//!
//! The file `copyright` gets a paragraph for each; the texts that must go with copies stand, each once and word for word,
//! in a file of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree;
use crate::error::{Error, Result};
use crate::json::{self, Value};
use crate::layout::{self, Layout};
use crate::process;
use crate::setup;

/// Where the package's `copyright` says that texts of licences are.
const TEXTS: &str = "usr/share/doc/ostler/third-party-licenses.txt";

/// How the names of files begin in which authors put what must go with copies, in small letters.
const TEXT_NAMES: &[&str] = &["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// Licences of which every Debian system has the text, and its name there.
const COMMON: &[(&str, &str)] = &[("Apache-2.0", "Apache-2.0"), ("LGPL-2.1+", "LGPL-2.1"), ("MPL-2.0", "MPL-2.0")];

/// Longest time for cargo to read its own metadata; it may have to download sources.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What Cargo says.
pub struct Crates {
    /// Version of the host.
    pub version: String,
    /// Every library of other people in the program, in the order of names.
    pub third_party: BTreeSet<Crate>,
}

/// A library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    name: String,
    version: String,
    /// As in `copyright`, not as in Cargo.
    license: String,
    authors: Vec<String>,
    folder: PathBuf,
    /// A text that the authors name, beside those that are found by their names.
    named_text: Option<PathBuf>,
}

/// Asks Cargo.
///
/// # Errors
/// [`Error::Command`] when cargo fails; [`Error::Malformed`] when a library names no licence.
pub fn read(layout: &Layout) -> Result<Crates> {
    let native = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let host = metadata(&layout.root, &native)?;
    let plugins = metadata(&layout.root.join("plugins"), setup::WASM_TARGET)?;
    let version = packages(&host).find(|package| package.text("name") == Some("ostler"));
    let version = version.and_then(|package| package.text("version"));
    let version = version.ok_or_else(|| malformed("no package `ostler`"))?.to_owned();
    let mut third_party = linked(&host, &["ostler", "ostler-guest"])?;
    third_party.append(&mut linked(&plugins, &["ostler-policy"])?);
    Ok(Crates { version, third_party })
}

fn metadata(workspace: &Path, target: &str) -> Result<Value> {
    let mut cargo = layout::cargo();
    cargo.current_dir(workspace).args(["metadata", "--locked", "--quiet", "--format-version=1", "--filter-platform"]);
    json::parse(&process::read(cargo.arg(target), LIMIT)?).map_err(|problem| malformed(&problem))
}

fn malformed(problem: &str) -> Error {
    Error::Malformed { what: "cargo metadata".to_owned(), problem: problem.to_owned() }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata.list("packages").unwrap_or_default().iter()
}

/// What is compiled into these crates of the workspace: neither tests' nor build scripts' libraries.
fn linked(metadata: &Value, roots: &[&str]) -> Result<BTreeSet<Crate>> {
    let nodes = metadata.get("resolve").and_then(|resolve| resolve.list("nodes"));
    let nodes = nodes.ok_or_else(|| malformed("no graph of dependencies"))?;
    let edges: BTreeMap<&str, &Value> = nodes.iter().filter_map(|node| Some((node.text("id")?, node))).collect();
    let known: BTreeMap<&str, &Value> =
        packages(metadata).filter_map(|package| Some((package.text("id")?, package))).collect();
    let is_root = |package: &&Value| package.text("name").is_some_and(|name| roots.contains(&name));
    let mut front: Vec<&str> = packages(metadata).filter(is_root).filter_map(|package| package.text("id")).collect();
    if front.len() != roots.len() {
        return Err(malformed(&format!("not every one of {}", roots.join(", "))));
    }
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(id) = front.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = known.get(id).ok_or_else(|| malformed(&format!("no package `{id}`")))?;
        // What is ours has no source.
        if package.text("source").is_some() {
            found.insert(library(package)?);
        }
        let dependencies = edges.get(id).and_then(|node| node.list("deps")).unwrap_or_default();
        front.extend(dependencies.iter().filter(|edge| is_normal(edge)).filter_map(|edge| edge.text("pkg")));
    }
    Ok(found)
}

/// Whether a dependency is used by the crate itself, which Cargo writes as no kind at all.
fn is_normal(dependency: &Value) -> bool {
    let kinds = dependency.list("dep_kinds").unwrap_or_default();
    kinds.iter().any(|kind| kind.get("kind") == Some(&Value::Null))
}

fn library(package: &Value) -> Result<Crate> {
    let text = |key: &str| package.text(key).unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    let license = match (package.text("license"), package.text("license_file")) {
        (Some(expression), _) => in_words_of_debian(expression),
        // Its words are its own.
        (None, Some(_)) => format!("of-{name}"),
        (None, None) => return Err(malformed(&format!("{name} {version} names no licence"))),
    };
    let authors = package.list("authors").unwrap_or_default().iter().filter_map(|author| match author {
        Value::Text(author) if !author.trim().is_empty() => Some(author.trim().to_owned()),
        _ => None,
    });
    let authors = authors.collect();
    let folder = PathBuf::from(text("manifest_path")).parent().map(Path::to_owned).unwrap_or_default();
    let named_text = package.text("license_file").map(|file| folder.join(file));
    Ok(Crate { license, name, version, authors, folder, named_text })
}

/// Cargo's expression of licences (SPDX) in the format of `copyright`, which has commas in place of brackets.
fn in_words_of_debian(expression: &str) -> String {
    let words = expression.replace('/', " OR ").replace(") AND ", ", and ").replace(" AND (", ", and ");
    let words = words.replace(['(', ')'], "").replace(" OR ", " or ").replace(" AND ", " and ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The licences that an expression names.
fn names(license: &str) -> impl Iterator<Item = &str> {
    license
        .split([' ', ','])
        .filter(|word| !["", "or", "and"].contains(word))
        .scan(false, |exception, word| {
            // `A WITH E` is one licence, which has the text of A.
            let skipped = std::mem::replace(exception, word == "WITH") || word == "WITH";
            Some((!skipped).then_some(word))
        })
        .flatten()
}

/// Writes `copyright` and the texts into the tree of the package.
///
/// # Errors
/// [`Error::File`].
pub fn write(layout: &Layout, crates: &Crates, root: &Path) -> Result<()> {
    let head = layout.root.join("host/debian/copyright");
    let head = fs::read_to_string(&head).map_err(Error::file("read", &head))?;
    tree::write(&root.join("usr/share/doc/ostler/copyright"), &copyright(&head, &crates.third_party))?;
    tree::write(&root.join(TEXTS), &texts(&crates.third_party)?)
}

fn copyright(head: &str, crates: &BTreeSet<Crate>) -> String {
    let mut text = head.trim_end().to_owned();
    let ours = head.lines().filter_map(|line| line.strip_prefix("License: "));
    let mut licenses: BTreeSet<&str> = ours.flat_map(names).collect();
    for Crate { name, version, license, authors, .. } in crates {
        let authors = match authors.len() {
            0 => format!("the authors of {name}"),
            _ => authors.join("\n "),
        };
        text.push_str(&format!("\n\nFiles: library/{name}-{version}\nCopyright: {authors}\nLicense: {license}"));
        licenses.extend(names(license));
    }
    for license in licenses {
        let place = match COMMON.iter().find(|(name, _)| *name == license) {
            Some((_, file)) => format!("On Debian systems the text is in /usr/share/common-licenses/{file}."),
            None if license == "public-domain" => "The authors gave up their rights.".to_owned(),
            None => format!("The text of each library that is under it is in\n /{TEXTS}.gz."),
        };
        text.push_str(&format!("\n\nLicense: {license}\n {place}"));
    }
    text + "\n"
}

/// Every text once, with the names of those that bring it.
fn texts(crates: &BTreeSet<Crate>) -> Result<String> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    for library in crates {
        let texts = texts_of(library)?;
        let name = format!("{} {}", library.name, library.version);
        if texts.is_empty() {
            silent.push(format!("{name}: {}\n", library.license));
        }
        for text in texts {
            found.entry(text).or_default().push(name.clone());
        }
    }
    let mut whole = String::from("What the authors of the libraries in `ostler` ask to go with copies of them.\n");
    for (text, libraries) in found {
        let rule = "=".repeat(80);
        whole.push_str(&format!("\n{rule}\n{}\n{rule}\n\n{text}\n", libraries.join(", ")));
    }
    if !silent.is_empty() {
        whole.push_str(&format!("\nLibraries that name a licence and bring no text:\n\n{}", silent.concat()));
    }
    Ok(whole)
}

fn texts_of(library: &Crate) -> Result<BTreeSet<String>> {
    let folder = &library.folder;
    let entries = fs::read_dir(folder).map_err(Error::file("list", folder))?;
    let mut texts = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(Error::file("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let is_text =
            TEXT_NAMES.iter().any(|start| name.starts_with(start)) || library.named_text.as_ref() == Some(&path);
        if is_text && path.is_file() {
            let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
            texts.insert(String::from_utf8_lossy(&bytes).trim_end().replace('\r', ""));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with one library, one for build scripts, one for tests, and one that a library uses.
    const METADATA: &str = r#"{"packages":[
        {"id":"o","name":"ostler","version":"0.1.0","source":null,"license":"Apache-2.0","authors":[],"manifest_path":"/o/C"},
        {"id":"a","name":"a","version":"1.0.0","source":"r","license":"MIT/Apache-2.0","authors":["A B <a@b>"],"manifest_path":"/a/C"},
        {"id":"b","name":"b","version":"2.0.0","source":"r","license":"(MIT OR Zlib) AND Unicode-3.0","authors":[],"manifest_path":"/b/C"},
        {"id":"s","name":"s","version":"3.0.0","source":"r","license":null,"license_file":null,"authors":[],"manifest_path":"/s/C"}],
        "resolve":{"nodes":[
        {"id":"o","deps":[{"pkg":"a","dep_kinds":[{"kind":null}]},{"pkg":"s","dep_kinds":[{"kind":"build"},{"kind":"dev"}]}]},
        {"id":"a","deps":[{"pkg":"b","dep_kinds":[{"kind":null}]}]},{"id":"b","deps":[]},{"id":"s","deps":[]}]}}"#;

    #[test]
    fn what_is_linked_is_named_and_what_only_builds_or_tests_is_not() {
        let found = linked(&json::parse(METADATA).unwrap(), &["ostler"]).unwrap();
        let names: Vec<(&str, &str)> = found.iter().map(|c| (c.name.as_str(), c.license.as_str())).collect();
        assert_eq!(names, [("a", "MIT or Apache-2.0"), ("b", "MIT or Zlib, and Unicode-3.0")]);
        assert_eq!(
            copyright("Files: *\nLicense: Apache-2.0\n", &found),
            "Files: *\nLicense: Apache-2.0\n\n\
             Files: library/a-1.0.0\nCopyright: A B <a@b>\nLicense: MIT or Apache-2.0\n\n\
             Files: library/b-2.0.0\nCopyright: the authors of b\nLicense: MIT or Zlib, and Unicode-3.0\n\n\
             License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n\n\
             License: MIT\n The text of each library that is under it is in\n /usr/share/doc/ostler/third-party-licenses.txt.gz.\n\n\
             License: Unicode-3.0\n The text of each library that is under it is in\n /usr/share/doc/ostler/third-party-licenses.txt.gz.\n\n\
             License: Zlib\n The text of each library that is under it is in\n /usr/share/doc/ostler/third-party-licenses.txt.gz.\n"
        );
    }

    #[test]
    fn a_library_without_a_licence_is_refused_by_name() {
        let text = METADATA.replace(r#""license":"MIT/Apache-2.0""#, r#""license":null"#);
        let error = linked(&json::parse(&text).unwrap(), &["ostler"]).unwrap_err();
        assert!(error.to_string().contains("a 1.0.0 names no licence"), "{error}");
        assert!(linked(&json::parse(METADATA).unwrap(), &["ostler", "gone"]).is_err());

        let text = text.replace(r#""license":null"#, r#""license":null,"license_file":"TERMS""#);
        let found = linked(&json::parse(&text).unwrap(), &["ostler"]).unwrap();
        let own: Vec<_> = found.iter().map(|c| (c.license.as_str(), c.named_text.as_deref())).collect();
        assert_eq!(own[0], ("of-a", Some(Path::new("/a/TERMS"))));
    }

    #[test]
    fn an_exception_is_no_licence_of_its_own() {
        let license = in_words_of_debian("Apache-2.0 WITH LLVM-exception OR MIT");
        assert_eq!(names(&license).collect::<Vec<_>>(), ["Apache-2.0", "MIT"]);
    }
}
