//! Commands that only Ostler itself gives.

use ostler_sandbox::launcher::LauncherConfig;

use super::CliError;
use super::args::InternalLauncher;

/// Becomes the launcher: the process that makes sandboxes. Must be called before the process has a second thread.
pub(super) fn launcher(launcher: InternalLauncher) -> Result<(), CliError> {
    let config =
        LauncherConfig::from_argument(&launcher.configuration).map_err(|source| CliError::Launcher { source })?;
    ostler_sandbox::launcher::run(config).map_err(|source| CliError::Launcher { source })
}
