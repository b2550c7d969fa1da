//! The configuration file: found, read, and compared with the table of keys.
//!
//! ```text
//!  text ─► tree with positions (toml) ─► every key against the table ─► entries, and every problem at once
//! ```
//!
//! Does not know the environment or flags, nor what a value means for the host.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Value;
use super::key_path::KeyPath;
use super::kind::{self, Kind};
use super::problem::{ConfigError, Place, Position, Problem, nearest, suggest};
use super::table::{KEYS, Key};
use crate::egress::HostPattern;

/// Where the file is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/ostler/config.toml";

/// Most bytes of a file. A configuration with a thousand models stays far below it.
const MOST_BYTES: u64 = 1 << 20;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Every value that is right.
    pub(super) entries: Vec<Entry>,
    /// Sections with a name of the operator's, with the place where each begins.
    pub(super) named: Vec<(KeyPath, Position)>,
    /// Keys whose value is wrong.
    pub(super) refused: Vec<KeyPath>,
    /// Whether the text is not TOML, so that nothing is known of what it says.
    pub(super) unreadable: bool,
    /// Everything that is wrong.
    pub(super) problems: Vec<Problem>,
}

/// A value of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: KeyPath,
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) position: Position,
}

/// Finds the file and reads it. A file that somebody named must be there.
pub(super) fn open(named: Option<&Path>, default: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = named.unwrap_or(default);
    match read(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        let message = format!("it has more than {MOST_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Compares a text with the table of keys.
pub(super) fn parse(path: &Path, text: &str) -> Contents {
    let mut reading = Reading { path, text, contents: Contents::default() };
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        reading.section(tree.get_ref(), &KeyPath::default(), "");
        return reading.contents;
    }
    // What was recovered of a text that is not TOML may be in the wrong section, so its keys are not judged.
    reading.contents.unreadable = true;
    for error in errors {
        let at = error.span().unwrap_or(text.len()..text.len());
        reading.problem(at, format!("not valid TOML: {}", error.message().to_lowercase()), None);
    }
    reading.contents
}

struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    contents: Contents,
}

impl Reading<'_> {
    /// Judges a section. `pattern` is its path in the table, empty for the whole file.
    fn section(&mut self, table: &DeTable<'_>, path: &KeyPath, pattern: &str) {
        for (name, value) in table {
            let below = path.join(name.get_ref());
            let own = join(pattern, name.get_ref());
            let any = join(pattern, "*");
            if let Some(key) = Key::at(&own) {
                self.value(key, below, value, name.span());
            } else if is_section(&own) {
                self.enter(value, &below, &own);
            } else if !is_section(&any) {
                self.unknown(name, &below, pattern);
            } else if let Some(wrong) = misnamed(pattern, name.get_ref()) {
                self.problem(name.span(), format!("`{below}` {wrong}"), None);
            } else {
                let position = Position::of(self.text, name.span().start);
                self.contents.named.push((below.clone(), position));
                self.enter(value, &below, &any);
            }
        }
    }

    fn enter(&mut self, value: &Spanned<DeValue<'_>>, path: &KeyPath, pattern: &str) {
        match value.get_ref().as_table() {
            Some(table) => self.section(table, path, pattern),
            None => {
                let message = format!("`{path}` is a section, not {}", Kind::Text.found(value.get_ref()));
                self.problem(value.span(), message, Some(format!("write `[{path}]` on a line of its own")));
            }
        }
    }

    fn value(&mut self, key: &'static Key, path: KeyPath, value: &Spanned<DeValue<'_>>, at: Range<usize>) {
        let position = Position::of(self.text, at.start);
        let read = match value.get_ref() {
            DeValue::Array(array) if key.kind.is_list() => Ok(self.members(key, &path, array)),
            other => key.kind.read_toml(other),
        };
        match read {
            Ok(value) => {
                let folder = self.path.parent().unwrap_or(Path::new("/"));
                let value = key.kind.rooted(value, folder);
                self.contents.entries.push(Entry { path, key, value, position });
            }
            Err(wrong) => {
                self.problem(value.span(), format!("`{path}`: {wrong}"), mistaken(key, value.get_ref()));
                self.contents.refused.push(path);
            }
        }
    }

    /// Judges the members of a list, each by itself.
    fn members(&mut self, key: &Key, path: &KeyPath, array: &[Spanned<DeValue<'_>>]) -> Value {
        let mut members = Vec::new();
        for member in array {
            let read = match member.get_ref() {
                DeValue::String(text) if key.kind != Kind::Ports => {
                    key.kind.read(text).map_err(|wrong| wrong.to_string())
                }
                DeValue::Integer(number) if key.kind == Kind::Ports && number.radix() == 10 => {
                    key.kind.read(number.as_str()).map_err(|wrong| wrong.to_string())
                }
                other => Err(format!("{} is not {}", key.kind.found(other), key.kind.words())),
            };
            match read {
                Ok(Value::List(texts)) => members.extend(texts),
                Ok(_) => {}
                Err(wrong) => self.problem(member.span(), format!("`{path}`: {wrong}"), None),
            }
        }
        Value::List(members)
    }

    fn unknown(&mut self, name: &Spanned<impl AsRef<str>>, path: &KeyPath, pattern: &str) {
        let word = name.get_ref().as_ref();
        if pattern == "providers.*" && matches!(word, "api_key" | "key" | "apikey" | "token") {
            let message = format!("`{path}`: an API key does not belong in this file, which is read, copied and shown");
            let hint = "give `api_key_env`, the variable that holds the key, or `api_key_file`, a file that only its \
                        owner may read";
            return self.problem(name.span(), message, Some(hint.to_owned()));
        }
        let elsewhere = KEYS.iter().find(|key| key.split().1 == word && !key.path.contains('*'));
        let hint = match elsewhere {
            Some(key) => format!("did you mean `{word}` in the section `[{}]`?", key.split().0),
            None => suggest(word, &names_in(pattern)),
        };
        self.problem(name.span(), format!("unknown key `{path}`"), Some(hint));
    }

    fn problem(&mut self, at: Range<usize>, message: String, hint: Option<String>) {
        let place = Place::File(self.path.to_owned(), Position::of(self.text, at.start));
        self.contents.problems.push(Problem { place, message, hint });
    }
}

fn join(pattern: &str, part: &str) -> String {
    if pattern.is_empty() { part.to_owned() } else { format!("{pattern}.{part}") }
}

fn is_section(pattern: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.')))
}

/// Keys and sections in a section.
fn names_in(pattern: &str) -> Vec<&'static str> {
    let below = KEYS.iter().filter_map(|key| match pattern {
        "" => Some(key.path),
        _ => key.path.strip_prefix(pattern)?.strip_prefix('.'),
    });
    let mut names: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
    names.dedup();
    names
}

/// What is wrong with a name that the operator chose.
fn misnamed(pattern: &str, name: &str) -> Option<&'static str> {
    match pattern {
        "providers" if !kind::is_provider(name) => {
            Some("is not the name of a provider: 1 to 64 of `a-z`, `0-9`, `_` and `-` were expected")
        }
        "providers.*.models" if !kind::is_model_name(name) => {
            Some("is not the name of a model: 1 to 200 printable characters without spaces were expected")
        }
        "egress.hosts" if name.parse::<HostPattern>().is_err() => Some(
            "is not a host: one such as `mirror.example.org`, or `\"*.example.org\"` for every name below it, was expected",
        ),
        _ => None,
    }
}

/// A hint for a value that is often put in the wrong place.
fn mistaken(key: &Key, value: &DeValue<'_>) -> Option<String> {
    let hint = match key.kind {
        Kind::Ports => "ports are numbers in brackets, such as `ports = [80, 443]`".to_owned(),
        Kind::Choice(words) => return Some(format!("did you mean `{}`?", nearest(value.as_str()?, words)?)),
        Kind::Variable => format!(
            "the name of the variable belongs here, not the key in it; such as `{} = {}`",
            key.split().1,
            key.example
        ),
        Kind::Url => format!(
            "such as `{} = {}`; an API key belongs in a variable or a file of its own",
            key.split().1,
            key.example
        ),
        _ => return None,
    };
    Some(hint)
}
