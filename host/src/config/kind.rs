//! Kinds of values: what a key accepts, and the words for what it does not.
//!
//! Owns the judgement on one value, whether it comes as text (environment, flags, defaults) or from the file. Does not
//! know keys, nor where a value stands. A value that may be a key by mistake is never repeated in words.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use ipnet::IpNet;
use reqwest::Url;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::{ByteSize, TimeSpan, Value};
use crate::egress::{HostPattern, METHODS, PRESETS, Preset, is_path_prefix};

/// Sizes that are accepted, in bytes: those that the launcher accepts as memory of a sandbox.
const MEMORY: RangeInclusive<u64> = 16 << 20..=64 << 40;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One line of text.
    Text,
    /// A path; a relative one counts from the folder of the file, or from the current one.
    Path,
    /// Paths.
    Paths,
    /// An absolute path to a file with a key.
    KeyFile,
    /// The name of an environment variable.
    Variable,
    /// An address with a port.
    Address,
    /// An address of HTTP.
    Url,
    /// Names of hosts.
    HostNames,
    /// Web origins.
    Origins,
    /// Hosts that may be reached, `*.` for all names below.
    HostPatterns,
    /// Names of presets of egress.
    Presets,
    /// Ports of TCP.
    Ports,
    /// Methods of HTTP.
    Methods,
    /// Beginnings of paths of HTTP.
    PathPrefixes,
    /// Ranges of addresses.
    Ranges,
    /// Addresses without a port.
    Addresses,
    /// A model with its provider.
    Model,
    /// A size in bytes.
    Size,
    /// Processor cores.
    Cores,
    /// A whole number.
    Number {
        /// Least.
        lowest: u32,
        /// Most.
        highest: u32,
    },
    /// A length of time, bounds in seconds.
    Time {
        /// Least.
        lowest: u64,
        /// Most.
        highest: u64,
    },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A filter of log lines.
    Filter,
}

/// Why a value is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} is not {expected}")]
pub struct Wrong {
    found: String,
    expected: String,
}

impl Kind {
    /// What a value of this kind is, for people: fits after "is not". Of a list, what a member is.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Text => "a text of one line".to_owned(),
            Self::Path | Self::Paths => "a path".to_owned(),
            Self::KeyFile => "an absolute path such as `/etc/ostler/provider.key`".to_owned(),
            Self::Variable => "the name of an environment variable such as `OPENAI_API_KEY`".to_owned(),
            Self::Address => "an IP address with a port such as `127.0.0.1:7878`".to_owned(),
            Self::Url => "an `http` or `https` address of a host, without credentials, query or fragment".to_owned(),
            Self::HostNames => "a host name without a port such as `ostler.example.org`".to_owned(),
            Self::Origins => "a web origin such as `https://ostler.example.org`".to_owned(),
            Self::HostPatterns => {
                "a host such as `example.org`, or `*.example.org` for every name below it; without scheme, port or path"
                    .to_owned()
            }
            Self::Presets => {
                let names: Vec<String> = PRESETS.iter().map(|preset| format!("`{}`", preset.name)).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Ports => "a port from 1 to 65535".to_owned(),
            Self::Methods => format!("a method such as `GET`: one of {}", METHODS.join(", ")),
            Self::PathPrefixes => {
                "the beginning of a path such as `/debian/`, without `..`, query or wildcards".to_owned()
            }
            Self::Ranges => "a range of addresses such as `10.0.0.0/8`".to_owned(),
            Self::Addresses => "an IP address such as `10.0.0.7`".to_owned(),
            Self::Model => {
                "a model such as `anthropic/NAME`: a provider, a slash, the provider's name for it".to_owned()
            }
            Self::Size => "a size such as `512M` or `2G`, from 16M to 64T".to_owned(),
            Self::Cores => "a number of cores such as `1.5`, from 0.01 to 1024".to_owned(),
            Self::Number { lowest, highest } => format!("a whole number from {lowest} to {highest}"),
            Self::Time { lowest, highest } => format!(
                "a time with its unit such as `90s` or `15m`, from {} to {}",
                TimeSpan::from_seconds(lowest),
                TimeSpan::from_seconds(highest)
            ),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Filter => "a log filter such as `info` or `info,ostler::api=debug`".to_owned(),
        }
    }

    /// What the whole value is, for people.
    #[must_use]
    pub fn whole(self) -> String {
        match self {
            Self::Ports => format!("a list of numbers, each {}", self.words()),
            _ if self.is_list() => format!("a list of texts, each {}", self.words()),
            _ => self.words(),
        }
    }

    /// Whether the value is a list.
    #[must_use]
    pub fn is_list(self) -> bool {
        let of_egress = matches!(
            self,
            Self::HostPatterns
                | Self::Presets
                | Self::Ports
                | Self::Methods
                | Self::PathPrefixes
                | Self::Ranges
                | Self::Addresses
        );
        of_egress || matches!(self, Self::Paths | Self::HostNames | Self::Origins)
    }

    /// Judges a text; of a list, one member.
    ///
    /// # Errors
    /// When it is not of this kind.
    pub fn read(self, text: &str) -> Result<Value, Wrong> {
        let wrong = || Wrong { found: self.quoted(text), expected: self.words() };
        let as_text = |fits: bool| if fits { Ok(Value::Text(text.to_owned())) } else { Err(wrong()) };
        let as_member = |fits: bool| if fits { Ok(Value::List(vec![text.to_owned()])) } else { Err(wrong()) };
        let one_line = !text.trim().is_empty() && !text.contains(char::is_control);
        match self {
            Self::Text | Self::Path => as_text(one_line),
            Self::Paths => as_member(one_line),
            Self::KeyFile => as_text(one_line && text.starts_with('/')),
            Self::Variable => as_text(is_variable(text)),
            Self::Choice(words) => as_text(words.contains(&text)),
            Self::Filter => as_text(one_line && EnvFilter::try_new(text).is_ok()),
            Self::Model => as_text(is_model(text)),
            Self::HostNames => as_member(is_host(text)),
            Self::Origins => as_member(is_origin(text)),
            Self::HostPatterns => as_member(text.parse::<HostPattern>().is_ok()),
            Self::Presets => as_member(Preset::named(text).is_some()),
            Self::Ports => as_member(text.parse::<u16>().is_ok_and(|port| port > 0)),
            Self::Methods => as_member(METHODS.contains(&text)),
            Self::PathPrefixes => as_member(is_path_prefix(text)),
            Self::Ranges => as_member(text.parse::<IpNet>().is_ok_and(|range| range == range.trunc())),
            Self::Addresses => as_member(text.parse::<IpAddr>().is_ok()),
            Self::Url => match url(text) {
                Some(url) => Ok(Value::Text(url)),
                None => Err(wrong()),
            },
            Self::Address => text.parse().map(Value::Address).map_err(|_| wrong()),
            Self::Cores => text.parse().map(Value::Cores).map_err(|_| wrong()),
            Self::Size => {
                let size = text.parse().ok().filter(|size: &ByteSize| MEMORY.contains(&size.0));
                size.map(Value::Size).ok_or_else(wrong)
            }
            Self::Number { lowest, highest } => {
                let number = text.parse().ok().filter(|number| (lowest..=highest).contains(number));
                number.map(Value::Number).ok_or_else(wrong)
            }
            Self::Time { lowest, highest } => {
                let bounds = TimeSpan::from_seconds(lowest)..=TimeSpan::from_seconds(highest);
                let time = text.parse().ok().filter(|time| bounds.contains(time));
                time.map(Value::Time).ok_or_else(wrong)
            }
        }
    }

    /// Judges a value of the file; the members of a list are judged by themselves.
    ///
    /// # Errors
    /// When it is not of this kind.
    pub fn read_toml(self, value: &DeValue<'_>) -> Result<Value, Wrong> {
        let wrong = |found: String| Wrong { found, expected: self.whole() };
        match (self, value) {
            (_, DeValue::String(text)) if !self.is_list() && !matches!(self, Self::Number { .. }) => self.read(text),
            (Self::Cores, DeValue::Float(number)) => self.read(number.as_str()),
            (Self::Cores | Self::Number { .. }, DeValue::Integer(number)) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => self.read(&number.to_string()),
                    Err(_) => Err(wrong(self.found(value))),
                }
            }
            _ => Err(wrong(self.found(value))),
        }
    }

    /// A value of this kind as the file would hold it.
    #[must_use]
    pub fn to_toml(self, value: &Value) -> toml::Value {
        match (self, value) {
            (Self::Ports, Value::List(ports)) => {
                let numbers = ports.iter().filter_map(|port| port.parse().ok()).map(toml::Value::Integer);
                toml::Value::Array(numbers.collect())
            }
            (_, value) => value.to_toml(),
        }
    }

    /// A path counts from the folder of where it was written; other values are what they are.
    #[must_use]
    pub fn rooted(self, value: Value, folder: &Path) -> Value {
        let join = |text: String| folder.join(text).to_string_lossy().into_owned();
        match (self, value) {
            (Self::Path, Value::Text(text)) => Value::Text(join(text)),
            (Self::Paths, Value::List(texts)) => Value::List(texts.into_iter().map(join).collect()),
            (_, value) => value,
        }
    }

    /// What was found, in words.
    pub(super) fn found(self, value: &DeValue<'_>) -> String {
        match value {
            DeValue::String(text) => format!("the text {}", self.quoted(text)),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => format!("`{value}`"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a section".to_owned(),
        }
    }

    /// The text, unless a key may have been put there by mistake.
    fn quoted(self, text: &str) -> String {
        const LONGEST: usize = 80;
        if matches!(self, Self::KeyFile | Self::Variable | Self::Url) {
            "what is written there".to_owned()
        } else if text.chars().count() > LONGEST {
            format!("`{}…`", text.chars().take(LONGEST).collect::<String>())
        } else {
            format!("`{text}`")
        }
    }
}

fn is_variable(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= 64 && !text.as_bytes()[0].is_ascii_digit() && text.bytes().all(word)
}

/// Whether this can be the name of a provider.
pub(super) fn is_provider(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(word)
}

/// Whether this can be a provider's name for a model.
pub(super) fn is_model_name(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_model(text: &str) -> bool {
    text.split_once('/').is_some_and(|(provider, model)| is_provider(provider) && is_model_name(model))
}

fn is_host(text: &str) -> bool {
    // The parser takes over a name as it is only where it is one.
    Url::parse(&format!("http://{text}/")).is_ok_and(|url| url.host_str() == Some(&text.to_ascii_lowercase()))
}

fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text.to_ascii_lowercase()
    })
}

/// The address without a slash at its end, if it is one.
fn url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && plain && url.fragment().is_none();
    fits.then(|| url.as_str().trim_end_matches('/').to_owned())
}
