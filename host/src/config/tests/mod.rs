//! Tests of the configuration: one helper loads, tests give data.

mod errors;
mod loading;
mod pages;
mod precedence;
mod secrets;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{ConfigError, Flag, Inputs, Loaded};

/// What a test gives.
#[derive(Default)]
struct Given<'a> {
    /// Text of the file; none where `None`.
    file: Option<&'a str>,
    /// The environment.
    variables: &'a [(&'a str, &'a str)],
    /// Flags.
    flags: Vec<Flag>,
}

/// A folder whose path is the same in every snapshot.
struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, given: Given<'_>) -> Result<Loaded, ConfigError> {
        let default_file = self.path("config.toml");
        if let Some(text) = given.file {
            fs::write(&default_file, text).unwrap();
        }
        let environment: BTreeMap<&str, &str> = given.variables.iter().copied().collect();
        let variables = |name: &str| environment.get(name).map(OsString::from);
        let folder = Path::new("/current").to_owned();
        Inputs { file: None, default_file, is_root: true, variables: &variables, flags: given.flags, folder }.load()
    }

    /// What a person is told, with the folder of the test left out.
    fn told(&self, error: &ConfigError) -> String {
        let lines: Vec<String> = match error {
            ConfigError::Wrong(problems) => problems
                .iter()
                .map(|problem| match &problem.hint {
                    Some(hint) => format!("{problem}\n  hint: {hint}"),
                    None => problem.to_string(),
                })
                .collect(),
            other => vec![crate::telemetry::chain(other)],
        };
        lines.join("\n").replace(&self.folder.path().display().to_string(), "FOLDER")
    }
}
