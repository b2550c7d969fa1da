//! Keys of providers: where each comes from, and the one place that reads them.
//!
//! A key is in an environment variable or in a file that only its owner may read. It is never in the configuration,
//! never shown and never part of an error.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::problem::{ConfigError, Place, Problem};
use super::settings::{Origin, Settings, Variables};
use super::table::SCRIPTED;
use super::{Secret, Value};

/// Most bytes of a file with a key.
const MOST_BYTES: u64 = 16 << 10;

/// Where the key of a provider comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable, which was read with the rest of the environment.
    Variable(String, Secret),
    /// A file, which is read when the host starts.
    File(PathBuf),
    /// Nowhere; the variable that would hold it, if one is named.
    Nowhere(Option<String>),
}

/// Why a file holds no key.
#[derive(Debug, thiserror::Error)]
enum KeyFileError {
    #[error("could not read the key file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the key file {} is no file", .0.display())]
    NoFile(PathBuf),
    #[error("others than its owner may read the key file {} (mode {mode:04o})", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the key file {} holds no key: one line of printable ASCII was expected", .0.display())]
    NoKey(PathBuf),
}

impl KeySource {
    /// The sources of all providers that are asked over HTTP.
    pub(super) fn find_all(
        settings: &Settings,
        variables: Variables<'_>,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<(String, Self)>, ConfigError> {
        let mut all = Vec::new();
        for name in settings.providers().into_iter().filter(|name| *name != SCRIPTED) {
            let variable: Option<String> = settings.get("providers.*.api_key_env", &[name])?;
            let file: Option<PathBuf> = settings.get("providers.*.api_key_file", &[name])?;
            let set = variable.as_deref().and_then(variables).filter(|value| !value.is_empty());
            let source = match (variable, set, file) {
                (Some(variable), Some(value), _) => match value.to_str().and_then(key) {
                    Some(secret) => Self::Variable(variable, secret),
                    None => {
                        let message = "it holds no key: one line of printable ASCII was expected".to_owned();
                        problems.push(Problem { place: Place::Variable(variable), message, hint: None });
                        continue;
                    }
                },
                (_, _, Some(file)) => Self::File(file),
                (variable, None, None) | (variable @ None, Some(_), None) => Self::Nowhere(variable),
            };
            all.push((name.to_owned(), source));
        }
        Ok(all)
    }

    /// The key. `place` tells where the file was named.
    pub(super) fn read(&self, place: Place) -> Result<Option<Secret>, Problem> {
        let path = match self {
            Self::Variable(_, secret) => return Ok(Some(secret.clone())),
            Self::Nowhere(_) => return Ok(None),
            Self::File(path) => path,
        };
        match read(path) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) => {
                let hint = match &error {
                    KeyFileError::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
                    KeyFileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                        Some("run it as the user that starts the host, such as with `sudo`".to_owned())
                    }
                    _ => None,
                };
                Err(Problem { place, message: error.to_string(), hint })
            }
        }
    }
}

/// Where a provider's key file was named.
pub(super) fn place(settings: &Settings, file: Option<&Path>, provider: &str) -> Place {
    let origin = settings.find("providers.*.api_key_file", &[provider]).map(|setting| setting.origin);
    match (origin, file) {
        (Some(Origin::File(position)), Some(file)) => Place::File(file.to_owned(), position),
        _ => Place::Default,
    }
}

fn read(path: &Path) -> Result<Secret, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    // Looked at before it is opened, because opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeyFileError::NoFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    // One byte more than it may have: the beginning of something longer is no key.
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let whole = u64::try_from(bytes.len()).is_ok_and(|length| length <= MOST_BYTES);
    let text = std::str::from_utf8(&bytes).ok().filter(|_| whole);
    text.and_then(key).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
}

/// The key in a text: what is left without white space around it.
fn key(text: &str) -> Option<Secret> {
    let text = text.trim();
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::new(text))
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name, _) => write!(f, "set, from the environment variable {name}"),
            Self::File(path) => write!(f, "from the file {}", path.display()),
            Self::Nowhere(Some(name)) => write!(f, "not set, the environment variable {name} would hold it"),
            Self::Nowhere(None) => f.write_str("not set"),
        }
    }
}

impl From<&KeySource> for Value {
    fn from(source: &KeySource) -> Self {
        Self::Text(format!("({source})"))
    }
}
