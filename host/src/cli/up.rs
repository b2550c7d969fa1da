//! `ostler up`: hands the configuration to the host.

use std::path::Path;

use super::args::Up;
use super::output::Printer;
use super::{CliError, discovery};
use crate::{app, telemetry};

/// Runs until the host ends. Must be called before the process has a second thread.
pub(super) fn execute(up: Up, printer: &mut Printer) -> Result<(), CliError> {
    let runtime = discovery::runtime_dir()?;
    let absolute = |path: &Path| {
        // The host leaves the folder that it was started in.
        std::path::absolute(path).map_err(|source| CliError::File { operation: "find", path: path.to_owned(), source })
    };
    let config = up.file.load(up.settings.given())?.host(absolute(&runtime)?)?;
    telemetry::init(&config.log)?;
    // A closed output is no reason to end a host that is up.
    let ready = |url: &str| drop(printer.line(&format!("ostler is ready at {url}")));
    app::up(config, ready)?;
    Ok(())
}
