//! Every promise names tests, or measures of the benchmark, that exist.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::root;

const PAGE: &str = "docs/src/promises.md";

/// Names of all functions in the sources, and of the measures of the benchmark.
fn known() -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    let function =
        regex::Regex::new(r"#\[(?:tokio::)?test(?:\([^\]]*\))?\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn ([a-z0-9_]+)")?;
    let measure = regex::Regex::new(r#"Record::(?:new|rates|values)\(\s*"([a-z0-9]+)",\s*"([a-z_.0-9]+)""#)?;
    let mut front = ["host", "sandbox-runtime", "plugins", "tests"].map(|folder| root().join(folder)).to_vec();
    while let Some(folder) = front.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() && !name.starts_with('.') && name != "target" {
                front.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)?;
                known.extend(function.captures_iter(&text).map(|found| found[1].to_owned()));
                if path.starts_with(root().join("tests/bench")) {
                    known.extend(measure.captures_iter(&text).map(|found| format!("{}.{}", &found[1], &found[2])));
                }
            }
        }
    }
    Ok(known)
}

/// Promises of the page with what keeps them.
fn promises() -> Result<Vec<(String, Vec<String>)>> {
    let page = std::fs::read_to_string(root().join(PAGE)).context(PAGE)?;
    let row = regex::Regex::new(r"(?m)^- \*\*(P[0-9]+)\*\* (.+)\\\n  Kept by (.+)\.$")?;
    let name = regex::Regex::new(r"`([a-z0-9_.]+)`")?;
    let rows = row.captures_iter(&page);
    Ok(rows
        .map(|row| (row[1].to_owned(), name.captures_iter(&row[3]).map(|found| found[1].to_owned()).collect()))
        .collect())
}

#[test]
fn every_promise_is_kept_by_tests_that_exist() -> Result<()> {
    let (known, promises) = (known()?, promises()?);
    ensure!(promises.len() >= 20, "the page's promises are not found: {promises:?}");
    // By section on the page: a new one goes where it belongs, with the next number.
    let numbers: BTreeSet<String> = promises.iter().map(|(id, _)| id.clone()).collect();
    let expected: BTreeSet<String> = (1..=promises.len()).map(|number| format!("P{number}")).collect();
    assert_eq!(numbers, expected, "each promise has a number of its own, without gaps");
    for (id, tests) in &promises {
        assert!(!tests.is_empty(), "{id} names no test");
        let missing: Vec<&String> = tests.iter().filter(|test| !known.contains(*test)).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{id} names tests that do not exist");
    }
    Ok(())
}
