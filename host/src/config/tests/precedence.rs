//! The later counts: default, file, environment, flag. For every key, in every combination.

use super::{Given, Room};
use crate::config::{Flag, KEYS, Key, KeyPath, Kind, Origin, Value};
use crate::egress::{METHODS, PRESETS};

/// A text that a kind accepts, another one for each number.
fn sample(kind: Kind, number: usize) -> String {
    match kind {
        Kind::Text => format!("text{number}"),
        Kind::Path | Kind::Paths | Kind::KeyFile => format!("/folder/{number}"),
        Kind::Variable => format!("VARIABLE_{number}"),
        Kind::Address => format!("127.0.0.1:{number}"),
        Kind::Url => format!("http://host{number}/v1"),
        Kind::HostNames => format!("host{number}"),
        Kind::HostPatterns => format!("*.host{number}.example"),
        Kind::Presets => PRESETS[number].name.to_owned(),
        Kind::Ports => format!("{}", 8000 + number),
        Kind::Methods => METHODS[number].to_owned(),
        Kind::PathPrefixes => format!("/path{number}/"),
        Kind::Ranges => format!("10.{number}.0.0/16"),
        Kind::Addresses => format!("10.0.0.{number}"),
        Kind::Origins => format!("https://host{number}"),
        Kind::Model => format!("openai/model{number}"),
        Kind::Size => format!("{}M", 512 + number),
        Kind::Cores => format!("1.{number}"),
        Kind::Number { lowest, .. } => format!("{}", lowest as usize + number),
        Kind::Time { .. } => format!("{}s", 30 + number),
        Kind::Choice(words) => words[number % words.len()].to_owned(),
        Kind::Filter => ["trace", "debug", "warn", "error"][number].to_owned(),
    }
}

/// The value as it stands in a file.
fn literal(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Number { .. } | Kind::Cores => text.to_owned(),
        Kind::Ports => format!("[{text}]"),
        _ if kind.is_list() => format!("[\"{text}\"]"),
        _ => format!("\"{text}\""),
    }
}

/// Checks one key where the layers of `given` (bits: file, environment, flag) say something.
fn check(key: &'static Key, names: &[&str], given: usize) {
    let path = KeyPath::fill(key.path, names);
    let variable = key.variables.iter().find(|(of, _)| *of == path.to_string()).map(|(_, name)| *name);
    let text = |layer: usize| sample(key.kind, layer);
    let file = (given & 1 != 0).then(|| format!("{path} = {}", literal(key.kind, &text(1))));
    let variables: Vec<(&str, String)> =
        variable.filter(|_| given & 2 != 0).map(|name| (name, text(2))).into_iter().collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let flag = key.flag.filter(|_| given & 4 != 0);
    let flags = flag.map(|_| Flag { key: key.path, value: key.kind.read(&text(3)).unwrap() });
    let loaded = Room::new()
        .load(Given { file: file.as_deref(), variables: &variables, flags: flags.into_iter().collect() })
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let Some(setting) = loaded.settings.find(key.path, names) else {
        // A model or a host about which nobody said anything has no settings.
        assert!(file.is_none() && (path.model().is_some() || path.egress_host().is_some()), "{path}");
        return;
    };
    let read = |layer: usize| Some(key.kind.read(&text(layer)).unwrap());
    let (value, origin): (Option<Value>, Option<Origin>) = if let Some(flag) = flag {
        (read(3), Some(Origin::Flag(flag)))
    } else if !variables.is_empty() {
        (read(2), variable.map(Origin::Variable))
    } else if file.is_some() {
        (read(1), None)
    } else {
        assert_eq!(setting.origin, Origin::Default, "{path}");
        return;
    };
    assert_eq!(setting.value, value, "{path}, layers {given:03b}");
    match origin {
        Some(origin) => assert_eq!(setting.origin, origin, "{path}, layers {given:03b}"),
        None => assert!(matches!(setting.origin, Origin::File(at) if (at.line, at.column) == (1, column(&path)))),
    }
}

/// Where the last part of a dotted key begins.
fn column(path: &KeyPath) -> usize {
    let text = path.to_string();
    text.rfind('.').map_or(1, |dot| dot + 2)
}

#[test]
fn for_every_key_the_later_layer_counts() {
    for key in KEYS {
        let names: &[&str] = match key.path {
            "providers.*.script" => &["scripted"],
            path if path.contains(".models.") => &["openai", "m"],
            // What a built-in provider speaks cannot be chosen otherwise; the sample for the file is this one's.
            "providers.*.kind" => &["openai"],
            _ => &["openai"],
        };
        for given in 0..8 {
            check(key, names, given);
        }
    }
}

#[test]
fn a_list_is_replaced_and_an_empty_variable_is_not_set() {
    let room = Room::new();
    let file = "plugins.paths = [\"/a\", \"/b\"]\nhost.data = \"/file\"";
    let flags = vec![Flag { key: "plugins.paths", value: Value::List(vec!["c".into()]) }];
    let loaded = room.load(Given { file: Some(file), variables: &[("OSTLER_DATA", "")], flags }).unwrap();
    let host = loaded.host("/run".into()).unwrap();
    assert_eq!(host.plugins, [std::path::Path::new("/current/c")]);
    assert_eq!(host.data, std::path::Path::new("/file"));
}
