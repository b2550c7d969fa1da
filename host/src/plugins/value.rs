//! Values under decision: canonical JSON, digests, merge patches, limits.
//!
//! Canonical means: keys sorted by their bytes, no spaces, numbers as `serde_json` writes them. What was decided about is
//! thereby one text, and its digest names it.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Most bytes of a value that a plugin made.
pub(super) const MAX_PATCHED: usize = 1024 * 1024;
/// Deepest nesting of tool arguments.
pub(super) const MAX_DEPTH: usize = 64;

/// A value that cannot be decided about.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// It is not JSON.
    #[error("the {what} is not JSON")]
    NotJson {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Arguments are an object.
    #[error("the arguments are {found}, not a JSON object")]
    NotAnObject {
        /// What they are.
        found: &'static str,
    },
    /// It is nested too deeply.
    #[error("the arguments are nested deeper than {limit} levels")]
    TooDeep {
        /// Most levels.
        limit: usize,
    },
    /// It is too large.
    #[error("the new value has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A text that must not be empty is.
    #[error("the {what} is empty")]
    Empty {
        /// Which.
        what: &'static str,
    },
    /// A kind of patch of a later version of the contract.
    #[error("the patch is of a kind that this host does not know: `{kind}`")]
    UnknownPatch {
        /// What the plugin calls it.
        kind: String,
    },
}

/// The one text of a value.
pub(super) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.as_bytes());
            text.push('{');
            for (index, (name, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(field, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())))
}

/// Checks that a value can be the arguments of a tool.
pub(super) fn check_arguments(value: &Value) -> Result<(), ValueError> {
    let found = match value {
        Value::Object(_) => return check_depth(value, MAX_DEPTH),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
    };
    Err(ValueError::NotAnObject { found })
}

fn check_depth(value: &Value, left: usize) -> Result<(), ValueError> {
    let Some(left) = left.checked_sub(1) else { return Err(ValueError::TooDeep { limit: MAX_DEPTH }) };
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, left)),
        Value::Object(fields) => fields.values().try_for_each(|field| check_depth(field, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Checks the size of something that a plugin made.
pub(super) fn check_size(bytes: usize) -> Result<(), ValueError> {
    if bytes > MAX_PATCHED { Err(ValueError::TooLarge { bytes, limit: MAX_PATCHED }) } else { Ok(()) }
}

/// Reads JSON that a plugin made.
pub(super) fn parse(what: &'static str, text: &str) -> Result<Value, ValueError> {
    check_size(text.len())?;
    serde_json::from_str(text).map_err(|source| ValueError::NotJson { what, source })
}

/// JSON merge patch, RFC 7396: an object changes the fields it names, `null` removes one, anything else replaces.
pub(super) fn merge_patch(target: &Value, patch: Value) -> Value {
    let Value::Object(changes) = patch else { return patch };
    let mut fields = match target {
        Value::Object(fields) => fields.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(&name);
        } else {
            let old = fields.remove(&name).unwrap_or(Value::Null);
            fields.insert(name, merge_patch(&old, change));
        }
    }
    Value::Object(fields)
}

/// The beginning of a text, at most `limit` bytes, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_text_does_not_depend_on_the_order_of_keys() {
        let a: Value = serde_json::from_str(r#"{"b": [1, {"z": null, "a": "\u00e4\n"}], "a": 1.50}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a":1.5,"b":[1,{"a":"ä\n","z":null}]}"#).unwrap();
        assert_eq!(canonical(&a), r#"{"a":1.5,"b":[1,{"a":"ä\n","z":null}]}"#);
        assert_eq!(canonical(&a), canonical(&b));
    }

    #[test]
    fn the_digest_is_sha256_with_its_name() {
        assert_eq!(digest("{}"), "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merge_patch(&target, patch.clone()), expected, "{target} with {patch}");
        }
    }

    #[test]
    fn arguments_are_an_object_of_bounded_depth() {
        assert!(check_arguments(&json!({"command": "ls"})).is_ok());
        assert_eq!(
            check_arguments(&json!(["ls"])).unwrap_err().to_string(),
            "the arguments are an array, not a JSON object"
        );
        let deep = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!({ "a": inner }));
        assert!(matches!(check_arguments(&deep), Err(ValueError::TooDeep { .. })));
    }
}
