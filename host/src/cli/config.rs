//! `ostler config`: what holds, whether it is right, and what a file may say. Needs neither root nor a host.

use std::path::Path;

use super::CliError;
use super::args::{Config, ConfigCommand};
use super::output::Printer;
use super::settings::ConfigFile;
use crate::config::{self, DEFAULT_FILE, Origins};

pub(super) fn execute(config: Config, printer: &mut Printer) -> Result<(), CliError> {
    match config.command {
        ConfigCommand::Show { origin, json, settings } => {
            let loaded = config.file.load(settings.given())?;
            if json {
                return printer.json(&loaded.to_json());
            }
            printer.data(&loaded.show(if origin { Origins::Shown } else { Origins::Hidden }))
        }
        ConfigCommand::Validate { path } => validate(ConfigFile { config: path.or(config.file.config) }, printer),
        ConfigCommand::Schema => {
            let text =
                serde_json::to_string_pretty(&config::schema()).map_err(|error| CliError::Output(error.into()))?;
            printer.line(&text)
        }
    }
}

/// Files with keys are read too, so that what is said here holds for a start by the same user.
fn validate(file: ConfigFile, printer: &mut Printer) -> Result<(), CliError> {
    let loaded = file.load(Vec::new())?;
    // Where the host says where it is depends on who starts it, and is no part of the configuration.
    loaded.host(Path::new("/").to_owned())?;
    match &loaded.file {
        Some(path) => printer.line(&format!("OK: {}", path.display())),
        None => printer.line(&format!("OK: there is no {DEFAULT_FILE}; the defaults and the environment hold")),
    }
}
