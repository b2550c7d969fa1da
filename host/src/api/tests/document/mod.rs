//! The contract of the API: the committed document and the pages made of it, against the routes that are served.

mod events_page;
mod http_page;
mod page;
mod routes;
mod samples;

use std::path::Path;

use serde_json::Value;

use crate::api::document;

/// The document as it is made now.
fn document() -> Value {
    serde_json::from_str(document::text()).unwrap()
}

/// What a part of the document is, or refers to.
fn resolve<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => part,
    }
}

/// Compares a committed file of the reference with what it should be; `UPDATE_DOCS=1` writes it instead.
fn committed(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let different = found.lines().zip(expected.lines()).enumerate().find(|(_, (found, expected))| found != expected);
    assert!(
        found == expected,
        "docs/src/reference/{name} is not what the code says (first difference: {different:?}); if the change is meant, run \
         `UPDATE_DOCS=1 cargo test -p ostler --lib api::tests::document` and commit what it writes"
    );
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    committed("openapi.json", document::text());
}

#[test]
fn the_page_about_http_is_made_of_the_document() {
    committed("http-api.md", &http_page::render(&document()));
}

#[test]
fn the_page_about_events_is_made_of_the_document() {
    committed("events.md", &events_page::render(&document()));
}
