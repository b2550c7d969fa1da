//! The book's page of escapes is what the rows say, and every row has its test.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use ostler_sandbox::defence::Defence;

use crate::elsewhere::{ELSEWHERE, NOT_HERE};
use crate::row::Without;
use crate::run::rows;

const PAGE: &str = "docs/src/operations/escapes.md";

const HEAD: &str = "# Ways out that were tried

Processes have got out of containers before, and agents have got around their sandboxes. Each entry of the public lists from 2019
to 2026 that could concern Ostler is here. A test makes each attempt of the first table in a real sandbox, where it must be
stopped; then with its defences left out, where it must get through, since a test that also passes without the defence proves
nothing. Where several defences stand in a row, each alone stops it. Defences can be left out only in builds for tests.

This page is made from the tests in `sandbox-runtime/tests/escapes`.

## Tried with and without the defence

";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut line = |text: String| writeln!(page, "{text}").unwrap();
    line("| It tries to | as in | It is stopped by | Without |\n|---|---|---|---|".to_owned());
    for row in rows() {
        let defences: Vec<String> = row.defences.iter().map(|defence| in_words(*defence).to_owned()).collect();
        let defences = if defences.is_empty() { "the design".to_owned() } else { defences.join("; ") };
        let without = match row.without {
            Without::Through => "it gets through",
            Without::Stopped(why) => why,
        };
        line(format!("| {} | {} | {defences} | {without} |", row.tries, row.after));
    }
    line(
        "\n## Kept by other tests\n\n| It tries to | as in | It cannot, because | Kept by |\n|---|---|---|---|"
            .to_owned(),
    );
    for row in ELSEWHERE {
        let tests: Vec<String> = row.kept_by.iter().map(|test| format!("`{test}`")).collect();
        line(format!("| {} | {} | {} | {} |", row.tries, row.after, row.because, tests.join(", ")));
    }
    line("\n## Not tried\n\n| What | Why |\n|---|---|".to_owned());
    for (what, why) in NOT_HERE {
        line(format!("| {what} | {why} |"));
    }
    page
}

fn in_words(defence: Defence) -> &'static str {
    match defence {
        Defence::SystemCallFilter => "the system call filter",
        Defence::NoNewPrivileges => "no new privileges",
        Defence::NoSuid => "`nosuid` on the sandbox's files",
        Defence::NoDevices => "`nodev` on the sandbox's files",
        Defence::FewCapabilities => "few capabilities",
        Defence::NoInheritance => "empty inheritable and ambient sets",
        Defence::MaskedPaths => "masked files",
        Defence::ReadOnlyPaths => "read-only files",
        Defence::TreeCheck => "the check of a restored tree",
        Defence::KnownHome => "root's home is given, not looked up",
        Defence::NoForeignDescriptors => "no descriptor is handed down",
        Defence::SealedGuest => "the program of PID 1 is sealed",
        Defence::OwnIpc => "an IPC namespace of its own",
        Defence::OwnNetwork => "a network namespace of its own",
        Defence::OwnRoot => "a root of its own for what unpacks archives",
    }
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_generated_page_of_escapes_is_what_the_rows_say() {
    let path = root().join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, page()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let words = "write it again with: UPDATE_DOCS=1 cargo nextest run generated_page";
    assert!(found == page(), "{PAGE} is not what the rows say\n{words}");
}

/// Names of test functions in the sources of a folder.
fn tests_of(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tests_of(&entry.path()));
        } else if entry.file_name().to_str().unwrap().ends_with(".rs") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let after = text.split("test]").skip(1).filter_map(|part| part.split_once("fn ")?.1.split('(').next());
            found.extend(after.map(|name| name.trim().to_owned()));
        }
    }
    found
}

#[test]
fn every_row_has_a_test_of_its_name_and_every_name_is_a_test() {
    let here = tests_of(&root().join("sandbox-runtime/tests/escapes"));
    let rows: Vec<&str> = rows().map(|row| row.name).collect();
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "a name is given twice");
    let without: Vec<&&str> = rows.iter().filter(|name| !here.contains(**name)).collect();
    assert_eq!(without, Vec::<&&str>::new(), "rows without a test");
    let all = tests_of(&root().join("sandbox-runtime"));
    let unknown: Vec<&&str> =
        ELSEWHERE.iter().flat_map(|row| row.kept_by).filter(|test| !all.contains(**test)).collect();
    assert_eq!(unknown, Vec::<&&str>::new(), "tests that do not exist");
}
