//! `ostler plugins`: what the running host has loaded, and, without a host, the making of components.

use std::io::Write;
use std::path::Path;

use ostler_protocol::api::{PluginList, PluginView};

use super::args::List;
use super::client::Client;
use super::output::Printer;
use super::terminal::clean;
use super::{CliError, table};

/// Lists the plugins of the host. Those that it does without are told beside the list.
pub(super) async fn list(list: List, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let plugins: PluginList = client.get("list plugins", &["plugins"]).await?;
    if list.json {
        return printer.json(&plugins);
    }
    for refused in &plugins.refused {
        printer.warning(&format!("the host goes on without a plugin: {}", refused.reason));
    }
    if plugins.plugins.is_empty() {
        printer.note("the host has no plugins; `ostler up --plugin DIR` loads one");
        return Ok(());
    }
    let titles = ["PLUGIN", "VERSION", "HOOK", "PHASE", "PRIORITY", "ON FAILURE"];
    let text = table::render(titles, plugins.plugins.iter().flat_map(rows));
    printer.data(&text)
}

/// A row for each part that the plugin takes; one that takes none is seen too.
fn rows(plugin: &PluginView) -> Vec<[String; 6]> {
    let named = |rest: [&str; 4]| {
        let [hook, phase, priority, failure] = rest.map(clean);
        [clean(&plugin.id), clean(&plugin.version), hook, phase, priority, failure]
    };
    if plugin.hooks.is_empty() {
        return vec![named(["none", "", "", ""])];
    }
    plugin
        .hooks
        .iter()
        .map(|hook| named([&hook.hook, &hook.phase, &hook.priority.to_string(), &hook.failure]))
        .collect()
}

/// Makes a component of the core module `core` and writes it to `output`.
pub(super) fn componentize(core: &Path, output: &Path) -> Result<(), CliError> {
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
