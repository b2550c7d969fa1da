//! `ostler plugins`: prepares plugins; needs no host.

use std::io::Write;
use std::path::Path;

use super::CliError;
use super::args::{Plugins, PluginsCommand};

pub(super) fn execute(plugins: Plugins) -> Result<(), CliError> {
    match plugins.command {
        PluginsCommand::Componentize { core, output } => componentize(&core, &output),
    }
}

/// Makes a component of the core module `core` and writes it to `output`.
fn componentize(core: &Path, output: &Path) -> Result<(), CliError> {
    let file = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { operation, path, source }
    };
    let module = std::fs::read(core).map_err(file("read", core))?;
    let component = crate::plugins::componentize(&module)
        .map_err(|source| CliError::Componentize { path: core.to_owned(), source })?;
    // Written beside and renamed: a reader never meets half a component.
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(file("write", output))?;
    temporary.write_all(&component).map_err(file("write", output))?;
    // What is built is for everyone to read, as a compiler's output is; temporary files are made private.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temporary.as_file().set_permissions(readable).map_err(file("write", output))?;
    temporary.persist(output).map_err(|error| file("write", output)(error.error))?;
    Ok(())
}
