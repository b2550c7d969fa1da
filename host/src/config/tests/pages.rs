//! The table holds together, and what is made of it: reference pages, schema, the example.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Given, Room};
use crate::config::table::{Fallback, SECTIONS};
use crate::config::{KEYS, env, reference, schema};
use crate::pages::assert_current;

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config.toml")).unwrap()
}

#[test]
fn the_generated_page_of_the_configuration_is_current() {
    assert_current("reference/configuration.md", &reference::configuration());
}

#[test]
fn the_generated_page_of_the_environment_is_current() {
    assert_current("reference/environment.md", &reference::environment());
}

#[test]
fn every_row_of_the_table_is_sound() {
    for key in KEYS {
        let (section, name) = key.split();
        assert!(SECTIONS.iter().any(|known| known.path == section), "{section}");
        let defaults: Vec<&str> = match key.default {
            Fallback::Value(text) => vec![text],
            Fallback::For(some) => some.iter().map(|(_, text)| *text).collect(),
            Fallback::EmptyList => {
                assert!(key.kind.is_list(), "{}", key.path);
                Vec::new()
            }
            Fallback::Nothing(_) => Vec::new(),
        };
        for text in defaults {
            key.kind.read(text).unwrap_or_else(|wrong| panic!("default of {}: {wrong}", key.path));
        }
        for (_, variable) in key.variables {
            assert!(env::ALL.iter().any(|known| known.name == *variable), "{variable}");
        }
        let section = section.replacen('*', "openai", 1).replace('*', "\"m\"");
        let section = if name == "script" { "providers.scripted".to_owned() } else { section };
        let text = format!("[{section}]\n{name} = {}", key.example);
        let room = Room::new();
        room.load(Given { file: Some(&text), ..Given::default() }).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!key.meaning.ends_with('.') && !key.meaning.is_empty(), "{}", key.path);
    }
}

#[test]
fn the_example_is_complete_and_right() {
    let text = example();
    Room::new().load(Given { file: Some(&text), ..Given::default() }).unwrap();
    for key in KEYS {
        let name = key.split().1;
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} ="))), "examples/config.toml lacks `{name}`");
    }
}

/// What a schema of the shape that we write says against a value.
fn against(schema: &Json, value: &Json, place: &str) -> Vec<String> {
    let is = |wanted: &str| match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        other => panic!("unknown type {other}"),
    };
    let wanted: Vec<&str> = match &schema["type"] {
        Json::String(one) => vec![one],
        several => several.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect(),
    };
    let mut found = Vec::new();
    let mut expect = |fits: bool, what: &str| {
        if !fits {
            found.push(format!("{place}: {what}"));
        }
    };
    expect(wanted.into_iter().any(is), "type");
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        expect(regex::Regex::new(pattern).unwrap().is_match(text), "pattern");
    }
    if let Some(words) = schema["enum"].as_array() {
        expect(words.contains(value), "enum");
    }
    if let Some(number) = value.as_f64() {
        expect(schema["minimum"].as_f64().is_none_or(|least| number >= least), "minimum");
        expect(schema["maximum"].as_f64().is_none_or(|most| number <= most), "maximum");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let below = format!("{place}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(schema), _) | (None, schema @ Json::Object(_)) => found.extend(against(schema, value, &below)),
            (None, _) => found.push(format!("{below}: unknown")),
        }
    }
    for value in value.as_array().into_iter().flatten() {
        found.extend(against(&schema["items"], value, place));
    }
    found
}

#[test]
fn the_schema_accepts_the_example_and_every_value_of_the_table_and_refuses_a_typo() {
    let schema = schema();
    let example: Json = toml::from_str(&example()).unwrap();
    assert_eq!(against(&schema, &example, ""), Vec::<String>::new());
    for key in KEYS {
        let (section, name) = key.split();
        let value: Json = toml::from_str::<Json>(&format!("x = {}", key.example)).unwrap()["x"].clone();
        let whole = section
            .rsplit('.')
            .fold(json!({ name: value }), |inner, part| json!({ (if part == "*" { "name" } else { part }): inner }));
        assert_eq!(against(&schema, &whole, ""), Vec::<String>::new(), "{whole}");
    }
    for (wrong, told) in [
        (json!({ "hots": {} }), ".hots: unknown"),
        (json!({ "providers": { "x": { "base_ulr": "http://x" } } }), ".providers.x.base_ulr: unknown"),
        (json!({ "providers": { "x": { "api_key": "k" } } }), ".providers.x.api_key: unknown"),
        (json!({ "sandbox": { "pids": 1 } }), ".sandbox.pids: minimum"),
        (json!({ "sandbox": { "pids": "64" } }), ".sandbox.pids: type"),
        (json!({ "sandbox": { "memory": "lots" } }), ".sandbox.memory: pattern"),
        (json!({ "providers": { "x": { "kind": "other" } } }), ".providers.x.kind: enum"),
    ] {
        assert_eq!(against(&schema, &wrong, ""), [told]);
    }
}
