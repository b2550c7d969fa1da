//! Commands that only Ostler itself gives.

use ostler_sandbox::launcher::{LauncherConfig, LauncherError};

use super::CliError;
use super::args::{InternalLauncher, InternalProbe, InternalUnpack};

/// Becomes the launcher: the process that makes sandboxes. Must be called before the process has a second thread.
pub(super) fn launcher(launcher: InternalLauncher) -> Result<(), CliError> {
    let config =
        LauncherConfig::from_argument(&launcher.configuration).map_err(|source| CliError::Launcher { source })?;
    ostler_sandbox::launcher::run(config).map_err(|source| CliError::Launcher { source })
}

/// Tries what a launcher needs and says what came of it. Must be called before the process has a second thread.
pub(super) fn probe(probe: &InternalProbe) -> Result<(), CliError> {
    let plan = serde_json::from_str(&probe.plan)
        .map_err(|error| CliError::Launcher { source: LauncherError::Configuration(error) })?;
    ostler_sandbox::probe::run(&plan, std::io::stdout()).map_err(|source| CliError::Launcher { source })
}

/// Reads an archive where it can reach nothing else. Must be called before the process has a second thread.
pub(super) fn unpack(unpack: &InternalUnpack) -> Result<(), CliError> {
    ostler_sandbox::store::unpacker::run(&unpack.plan).map_err(|source| CliError::Launcher { source })
}
