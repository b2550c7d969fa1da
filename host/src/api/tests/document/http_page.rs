//! The page about the HTTP API.

use std::fmt::Write;

use ostler_protocol::ErrorCode;
use serde_json::Value;

use super::page::{code, fields, heading, json, kind, limits, table, text};
use super::resolve;

/// Types that the page about events shows.
const EVENTS: [&str; 4] = ["Event", "EventBody", "Delta", "CaughtUp"];

struct Operation<'a> {
    path: &'a str,
    method: String,
    body: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, body) in item.as_object().unwrap() {
            operations.push(Operation { path, method: method.to_ascii_uppercase(), body });
        }
    }
    operations
}

pub(super) fn render(document: &Value) -> String {
    let words = format!(
        "{}\n\nThe same as an [OpenAPI 3.1 document](openapi.json), which a host serves at `/v1/openapi.json`. What comes \
         over the stream of events has [a page of its own](events.md).",
        text(&document["info"]["description"])
    );
    let mut page = heading("HTTP API", &words);
    let operations = operations(document);
    page += "## Operations\n\n";
    let row = |operation: &Operation| {
        let anchor = text(&operation.body["operationId"]);
        let what = format!("[{}](#{})", text(&operation.body["summary"]), anchor.to_ascii_lowercase());
        vec![format!("`{} {}`", operation.method, operation.path), what]
    };
    page += &table(&["Request", "What it does"], &operations.iter().map(row).collect::<Vec<_>>());
    for operation in &operations {
        page += &section(document, operation);
    }
    page += "## Types\n\n";
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !EVENTS.contains(&name.as_str()) {
            page += &schema_section(document, name, schema);
        }
    }
    page + &codes()
}

fn section(document: &Value, operation: &Operation) -> String {
    let Operation { path, method, body } = operation;
    let mut page =
        format!("## {}\n\n`{method} {path}`\n\n{}\n\n", text(&body["operationId"]), text(&body["description"]));
    let parameters: Vec<Vec<String>> = body["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| {
            let words = [text(&parameter["description"]), limits(resolve(document, &parameter["schema"]))];
            let words = words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ");
            vec![format!("`{}`", text(&parameter["name"])), text(&parameter["in"]), kind(&parameter["schema"]), words]
        })
        .collect();
    if !parameters.is_empty() {
        page += &table(&["Parameter", "In", "Type", "Means"], &parameters);
    }
    let request = &body["requestBody"]["content"]["application/json"];
    if request.is_object() {
        write!(page, "The body is JSON: {}.\n\n", kind(&request["schema"])).unwrap();
    }
    let answers: Vec<Vec<String>> = body["responses"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(status, response)| {
            let response = resolve(document, response);
            let contents = response["content"].as_object().into_iter().flatten();
            let contents: Vec<String> =
                contents.map(|(media, content)| content_words(media, &content["schema"])).collect();
            vec![status.clone(), contents.join(", "), text(&response["description"])]
        })
        .collect();
    page += &table(&["Status", "Body", "Means"], &answers);
    page += &code("sh", &curl(operation));
    for (status, response) in body["responses"].as_object().unwrap() {
        for (media, content) in
            response["content"].as_object().into_iter().flatten().filter(|_| status.starts_with('2'))
        {
            match &content["example"] {
                Value::Null => {}
                Value::String(stream) if media == "text/event-stream" => page += &code("text", stream),
                example => page += &json(example),
            }
        }
    }
    page
}

fn content_words(media: &str, schema: &Value) -> String {
    if media == "application/json" { kind(schema) } else { format!("`{media}`") }
}

/// The request of an operation as a person at a terminal would make it.
fn curl(operation: &Operation) -> String {
    let mut path = operation.path.to_owned();
    let mut words = vec!["curl -H \"Authorization: Bearer $OSTLER_TOKEN\"".to_owned()];
    for parameter in operation.body["parameters"].as_array().into_iter().flatten() {
        let (name, example) = (text(&parameter["name"]), text(&parameter["example"]));
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), &example),
            Some("header") if !example.is_empty() => words.push(format!("-H '{name}: {example}'")),
            _ => {}
        }
    }
    let body = &operation.body["requestBody"]["content"]["application/json"]["example"];
    if body.is_object() {
        words.push(format!("--json '{body}'"));
    } else if operation.method != "GET" {
        words.push(format!("-X {}", operation.method));
    }
    words.push(format!("\"$OSTLER_URL{path}\""));
    words.join(" \\\n  ")
}

fn schema_section(document: &Value, name: &str, schema: &Value) -> String {
    let mut page = format!("### {name}\n\n{}\n\n", text(&schema["description"]));
    if schema["properties"].is_object() {
        page += &fields(schema, &[]);
    } else if let Some(parts) = schema["allOf"].as_array() {
        for part in parts {
            let inner = resolve(document, part);
            page += &fields(inner, &[]);
        }
    } else if let Some(variants) = schema["oneOf"].as_array() {
        for variant in variants {
            page += &format!("{}\n\n", text(&variant["description"]));
            page += &fields(variant, &[]);
        }
    } else {
        let words = [kind(schema), limits(schema)];
        page += &words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ");
        page += "\n\n";
    }
    page
}

fn codes() -> String {
    let row =
        |code: &ErrorCode| vec![format!("`{}`", code.as_str()), code.status().to_string(), code.meaning().to_owned()];
    let rows: Vec<Vec<String>> = ErrorCode::ALL.iter().map(row).collect();
    let words = "What the command line makes of them is on the page about [errors](../errors.md).\n";
    format!("## Error codes\n\n{}{words}", table(&["Code", "Status", "Means"], &rows))
}
