//! The page about events.

use serde_json::Value;

use super::page::{code, fields, heading, json, text};
use super::samples;

const WORDS: &str = "\
A session is its log: what happened, numbered from 1 without gaps, durable before anyone sees it. `GET \
/v1/sessions/{session}/events` gives it as pages or as a stream ([how](http-api.md#readevents)), `ostler events` and `ostler \
attach` show it.

Every event has `seq`, its number, `at_ms`, when it happened in milliseconds since the Unix epoch by the host's clock, and \
`type`. The other fields follow from the type. A client skips types that it does not know, and fields too: both may come \
with a new version. Fields are never taken away from a type, and a new one is optional.";

pub(super) fn render(document: &Value) -> String {
    let mut page = heading("Events", WORDS);
    let schemas = &document["components"]["schemas"];
    page += "## Types of events\n\n";
    for variant in schemas["EventBody"]["oneOf"].as_array().unwrap() {
        let name = name(variant);
        let body = samples::events().into_iter().find(|body| body["type"] == name.as_str());
        let mut body = body.unwrap_or_else(|| {
            panic!(
                "the event `{name}` has no example: add one to host/src/api/tests/document/samples.rs, then run this test with \
                 UPDATE_DOCS=1"
            )
        });
        body["seq"] = 7.into();
        body["at_ms"] = crate::api::document::examples::AT_MS.into();
        page += &section(&name, variant);
        page += &json(&body);
    }
    page += "## Frames of a stream that are no events\n\n### caught_up\n\n";
    page += &format!("{}\n\n", text(&schemas["CaughtUp"]["description"]));
    page += &fields(&schemas["CaughtUp"], &[]);
    page += &code("text", "event: caught_up\ndata: {\"seq\":7}");
    page += &format!("### delta\n\n{} Its `type` says which.\n\n", text(&schemas["Delta"]["description"]));
    for variant in schemas["Delta"]["oneOf"].as_array().unwrap() {
        let name = name(variant);
        let delta = samples::deltas().into_iter().find(|delta| delta["type"] == name.as_str());
        let delta = delta.unwrap_or_else(|| panic!("the delta `{name}` has no example in samples.rs"));
        page += &section(&name, variant);
        page += &code("text", &format!("event: delta\ndata: {delta}"));
    }
    page.trim_end().to_owned() + "\n"
}

/// The type that a variant stands for.
fn name(variant: &Value) -> String {
    text(&variant["properties"]["type"]["enum"][0])
}

fn section(name: &str, variant: &Value) -> String {
    let table = fields(variant, &["type"]);
    format!("### {name}\n\n{}\n\n{table}", text(&variant["description"]))
}
