//! `ostler up`: turns the flags into a configuration and hands it to the host.

use std::path::{Path, PathBuf};

use super::args::Up;
use super::output::Printer;
use super::{CliError, discovery};
use crate::config::{HostConfig, SandboxLimits, env};
use crate::{app, telemetry};

/// Runs until the host ends. Must be called before the process has a second thread.
pub(super) fn execute(up: Up, printer: &mut Printer) -> Result<(), CliError> {
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::NeedsRoot { command: "ostler up", why: "its launcher makes sandboxes" });
    }
    let filter = std::env::var(env::LOG).ok().filter(|filter| !filter.is_empty());
    telemetry::init(filter.as_deref())?;
    // A closed output is no reason to end a host that is up.
    let ready = |url: &str| drop(printer.line(&format!("ostler is ready at {url}")));
    app::up(configuration(up)?, ready)?;
    Ok(())
}

/// The flags as a configuration, with every path absolute: the host leaves the folder that it was started in.
fn configuration(up: Up) -> Result<HostConfig, CliError> {
    Ok(HostConfig {
        data: absolute(&up.data)?,
        runtime: absolute(&discovery::runtime_dir()?)?,
        listen: up.listen,
        allowed_hosts: up.allowed_hosts,
        allowed_origins: up.allowed_origins,
        model: up.model,
        script: up.script.as_deref().map(absolute).transpose()?,
        providers: providers(),
        image: up.image,
        plugins: up.plugins.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
        limits: SandboxLimits { memory: up.memory, pids: up.pids, cpus: up.cpus },
    })
}

fn providers() -> std::collections::BTreeMap<String, crate::config::ProviderSettings> {
    use crate::config::{ProviderKind, ProviderSettings, Secret};
    let from = |kind, key: &str, url: &str| {
        let mut settings = ProviderSettings::new(kind);
        settings.api_key = std::env::var(key).ok().filter(|key| !key.is_empty()).map(Secret::new);
        if let Ok(url) = std::env::var(url) {
            settings.base_url = url;
        }
        settings
    };
    std::collections::BTreeMap::from([
        ("anthropic".to_owned(), from(ProviderKind::Anthropic, env::ANTHROPIC_API_KEY, env::ANTHROPIC_BASE_URL)),
        ("openai".to_owned(), from(ProviderKind::OpenAi, env::OPENAI_API_KEY, env::OPENAI_BASE_URL)),
    ])
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    let find = |source| CliError::File { operation: "find", path: path.to_owned(), source };
    std::path::absolute(path).map_err(find)
}
