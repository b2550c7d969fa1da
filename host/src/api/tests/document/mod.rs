//! The contract of the API: the committed document and the pages made of it, against the routes that are served.

mod events_page;
mod http_page;
mod page;
mod routes;
mod samples;

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

/// Compares a committed file of the reference with what it should be, or writes it.
fn committed(name: &str, expected: &str) {
    crate::pages::assert_current(&format!("reference/{name}"), expected);
}

#[test]
fn the_generated_page_of_the_document_is_what_the_code_says() {
    committed("openapi.json", document::text());
}

#[test]
fn the_generated_page_about_http_is_made_of_the_document() {
    committed("http-api.md", &http_page::render(&document()));
}

#[test]
fn the_generated_page_about_events_is_made_of_the_document() {
    committed("events.md", &events_page::render(&document()));
}
