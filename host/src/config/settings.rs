//! Every value that holds, with where it was said.
//!
//! ```text
//!  default  <  file  <  environment  <  flag      the later counts; a list is replaced, never appended to
//! ```
//!
//! Owns the precedence. Does not know what a value means for the host.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use super::Value;
use super::file::{Contents, Entry};
use super::key_path::KeyPath;
use super::problem::{ConfigError, Place, Position, Problem};
use super::table::{BUILT_IN, Fallback, KEYS, Key, Providers, SCRIPTED};

/// What the environment says to a name.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A value given as a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Path of its key in the table.
    pub key: &'static str,
    /// What was given.
    pub value: Value,
}

/// A value that holds, or that nothing holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its path.
    pub path: KeyPath,
    /// Its row in the table.
    pub key: &'static Key,
    /// The value; `None` where there is none by default and nobody gave one.
    pub value: Option<Value>,
    /// Where it was said.
    pub origin: Origin,
}

/// Where a value was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the file.
    File(Position),
    /// In an environment variable.
    Variable(&'static str),
    /// In a flag.
    Flag(&'static str),
}

/// All settings, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    all: Vec<Setting>,
}

impl Settings {
    /// Lays the four layers over each other. Problems of the environment are added to `problems`.
    pub(super) fn layer(
        contents: &Contents,
        variables: Variables<'_>,
        flags: &[Flag],
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut all = Vec::new();
        for (key, path) in KEYS.iter().flat_map(|key| expand(key, contents).into_iter().map(move |path| (key, path))) {
            let entry = contents.entries.iter().find(|entry| entry.path == path);
            let flag = flags.iter().find(|flag| flag.key == key.path).zip(key.flag);
            let (value, origin) = if let Some((flag, name)) = flag {
                (Some(key.kind.rooted(flag.value.clone(), folder)), Origin::Flag(name))
            } else if let Some((text, name)) = variable(key, &path, variables) {
                match judge(key, &text) {
                    Ok(value) => (Some(key.kind.rooted(value, folder)), Origin::Variable(name)),
                    Err(message) => {
                        problems.push(Problem { place: Place::Variable(name.to_owned()), message, hint: None });
                        continue;
                    }
                }
            } else if let Some(Entry { value, position, .. }) = entry {
                (Some(value.clone()), Origin::File(*position))
            } else {
                (fallback(key, &path), Origin::Default)
            };
            all.push(Setting { path, key, value, origin });
        }
        Self { all }
    }

    /// All, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.all.iter()
    }

    /// The setting of a row, its `*` filled with names.
    #[must_use]
    pub fn find(&self, key: &str, names: &[&str]) -> Option<&Setting> {
        let path = KeyPath::fill(key, names);
        self.all.iter().find(|setting| setting.path == path)
    }

    pub(super) fn find_mut(&mut self, key: &str, names: &[&str]) -> Option<&mut Setting> {
        let path = KeyPath::fill(key, names);
        self.all.iter_mut().find(|setting| setting.path == path)
    }

    /// The value of a row, its `*` filled with names, if it has one.
    pub(super) fn get<T: TryFrom<Value>>(&self, key: &'static str, names: &[&str]) -> Result<Option<T>, ConfigError> {
        let value = self.find(key, names).and_then(|setting| setting.value.clone());
        value.map(T::try_from).transpose().map_err(|_| ConfigError::Table { key })
    }

    /// The value of a row that always has one.
    pub(super) fn must<T: TryFrom<Value>>(&self, key: &'static str, names: &[&str]) -> Result<T, ConfigError> {
        self.get(key, names)?.ok_or(ConfigError::Table { key })
    }

    /// Names of the providers, the built-in ones first.
    #[must_use]
    pub fn providers(&self) -> Vec<&str> {
        distinct(self.all.iter().filter_map(|setting| setting.path.provider()))
    }

    /// Hosts with a section of their own.
    #[must_use]
    pub fn egress_hosts(&self) -> Vec<&str> {
        distinct(self.all.iter().filter_map(|setting| setting.path.egress_host()))
    }

    /// Names of the models of a provider about which something is known.
    #[must_use]
    pub fn models(&self, provider: &str) -> Vec<&str> {
        let of = |setting: &&Setting| setting.path.provider() == Some(provider);
        distinct(self.all.iter().filter(of).filter_map(|setting| setting.path.model()))
    }
}

/// Whether a provider has a key.
pub(super) fn applies(key: &Key, provider: &str) -> bool {
    match key.providers {
        Providers::All => true,
        Providers::Remote => provider != SCRIPTED,
        Providers::Scripted => provider == SCRIPTED,
    }
}

/// The paths that a row stands for: one for each provider and model that there is.
fn expand(key: &Key, contents: &Contents) -> Vec<KeyPath> {
    let named = || contents.named.iter().map(|(path, _)| path);
    if key.path.contains(".models.") {
        let models = named().filter_map(|path| path.provider().zip(path.model()));
        let models = models.filter(|(provider, _)| applies(key, provider));
        models.map(|(provider, model)| KeyPath::fill(key.path, &[provider, model])).collect()
    } else if key.path.starts_with("egress.hosts.") {
        let hosts = distinct(named().filter_map(KeyPath::egress_host));
        hosts.into_iter().map(|host| KeyPath::fill(key.path, &[host])).collect()
    } else if key.path.contains('*') {
        let providers = distinct(BUILT_IN.iter().copied().chain(named().filter_map(KeyPath::provider)));
        let providers = providers.into_iter().filter(|provider| applies(key, provider));
        providers.map(|provider| KeyPath::fill(key.path, &[provider])).collect()
    } else {
        vec![KeyPath::fill(key.path, &[])]
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    names.for_each(|name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
    });
    seen
}

fn variable(key: &Key, path: &KeyPath, variables: Variables<'_>) -> Option<(OsString, &'static str)> {
    let path = path.to_string();
    let (_, name) = key.variables.iter().find(|(of, _)| *of == path)?;
    variables(name).filter(|value| !value.is_empty()).map(|value| (value, *name))
}

fn judge(key: &Key, text: &OsString) -> Result<Value, String> {
    let text = text.to_str().ok_or("it is not UTF-8")?;
    key.kind.read(text).map_err(|wrong| wrong.to_string())
}

/// The default as a value. That every default is one of its kind is tested.
fn fallback(key: &Key, path: &KeyPath) -> Option<Value> {
    let text = match key.default {
        Fallback::Value(text) => text,
        Fallback::EmptyList => return Some(Value::List(Vec::new())),
        Fallback::For(some) => {
            let path = path.to_string();
            some.iter().find(|(of, _)| *of == path)?.1
        }
        Fallback::Nothing(_) => return None,
    };
    key.kind.read(text).ok()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(position) => write!(f, "file, line {}", position.line),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
