//! The JSON Schema of the file, made of the table of keys, for editors that complete and check TOML.

use serde_json::{Value as Json, json};

use super::kind::Kind;
use super::table::{Fallback, KEYS, Key, SECTIONS};
use crate::egress::{METHODS, PRESETS};

/// The schema, in the draft 2020-12.
#[must_use]
pub fn schema() -> Json {
    let mut whole = object("Configuration of Ostler");
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    whole["title"] = "Ostler".into();
    for section in SECTIONS {
        enter(&mut whole, section.path)["description"] = section.meaning.into();
    }
    for key in KEYS {
        let (section, name) = key.split();
        enter(&mut whole, section)["properties"][name] = of(key);
    }
    whole
}

fn object(description: &str) -> Json {
    json!({ "type": "object", "description": description, "properties": {}, "additionalProperties": false })
}

/// The schema of a section, made where it is not there yet.
fn enter<'a>(whole: &'a mut Json, path: &str) -> &'a mut Json {
    path.split('.').fold(whole, |parent, part| {
        let place = match part {
            "*" => &mut parent["additionalProperties"],
            name => &mut parent["properties"][name],
        };
        if !place.is_object() {
            *place = object("");
        }
        place
    })
}

fn of(key: &Key) -> Json {
    let mut schema = value(key.kind);
    schema["description"] = format!("{}.", key.meaning).into();
    match key.default {
        Fallback::Value(text) => {
            schema["default"] = match key.kind.read(text).map(|value| value.to_toml()) {
                Ok(value) => json!(value),
                Err(_) => Json::Null,
            };
        }
        Fallback::EmptyList => schema["default"] = json!([]),
        Fallback::For(_) | Fallback::Nothing(_) => {}
    }
    schema
}

fn value(kind: Kind) -> Json {
    match kind {
        Kind::Number { lowest, highest } => json!({ "type": "integer", "minimum": lowest, "maximum": highest }),
        Kind::Cores => json!({ "type": ["number", "string"], "minimum": 0.01, "maximum": 1024 }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Size => json!({ "type": "string", "pattern": "^[0-9]+([kKmMgGtT]([iI]?[bB])?|[bB])?$" }),
        Kind::Time { .. } => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }),
        Kind::Variable => json!({ "type": "string", "pattern": "^[A-Z_][A-Z0-9_]{0,63}$" }),
        Kind::KeyFile => json!({ "type": "string", "pattern": "^/" }),
        Kind::Url => json!({ "type": "string", "pattern": "^https?://[^?#@]+$" }),
        Kind::Model => json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}/[!-~]{1,200}$" }),
        Kind::Presets => {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            json!({ "type": "array", "items": { "type": "string", "enum": names } })
        }
        Kind::Methods => json!({ "type": "array", "items": { "type": "string", "enum": METHODS } }),
        Kind::Ports => json!({ "type": "array", "items": { "type": "integer", "minimum": 1, "maximum": 65535 } }),
        Kind::PathPrefixes => json!({ "type": "array", "items": { "type": "string", "pattern": "^/" } }),
        Kind::Paths | Kind::HostNames | Kind::Origins | Kind::HostPatterns | Kind::Ranges | Kind::Addresses => {
            json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
        }
        Kind::Text | Kind::Path | Kind::Address | Kind::Filter => json!({ "type": "string", "minLength": 1 }),
    }
}
