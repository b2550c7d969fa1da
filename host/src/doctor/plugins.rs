//! Do the configured plugins load? They are loaded as at a start and asked nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::plugins::{PluginError, PluginHost, PluginInfo, PluginProblem, PluginSource};

const LOAD: &str = "plugins.load";

pub(super) async fn examine(paths: &[PathBuf], looker: Looker) -> Vec<Check> {
    if paths.is_empty() {
        return vec![none().of(LOAD)];
    }
    let mut ids: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut checks = Vec::new();
    for path in paths {
        let loaded = load(path.clone()).await;
        let twice = loaded.as_ref().ok().and_then(|plugin| ids.insert(plugin.id.clone(), path.clone()));
        let finding = match twice {
            Some(other) => Finding::failed(
                format!("another plugin has the same id: that in {}", other.display()),
                "give one of them another id in its plugin.toml, or leave one out",
            ),
            None => judge(&loaded, looker),
        };
        checks.push(finding.about(LOAD, path.display().to_string()));
    }
    checks
}

/// Why a plugin is not loaded.
enum Trouble {
    /// It cannot be used.
    Wrong(String),
    /// This user may not read it.
    Hidden,
}

async fn load(path: PathBuf) -> Result<PluginInfo, Trouble> {
    let wrong = |error: &PluginError| match &error.problem {
        PluginProblem::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => Trouble::Hidden,
        _ => Trouble::Wrong(error.describe()),
    };
    let host = PluginHost::load(&[PluginSource::Path(path)]).await.map_err(|error| wrong(&error))?;
    // A start refuses a configured plugin whether it says that it is required or not.
    host.refused().first().map_or(Ok(()), |error| Err(wrong(error)))?;
    host.plugins().pop().ok_or_else(|| Trouble::Wrong("it was not loaded".to_owned()))
}

fn none() -> Finding {
    Finding::ok("none are configured: everything passes")
}

fn judge(loaded: &Result<PluginInfo, Trouble>, looker: Looker) -> Finding {
    match (loaded, looker) {
        (Ok(plugin), _) => {
            let hooks: Vec<&str> = plugin.hooks.iter().map(|registration| registration.hook.name()).collect();
            Finding::ok(format!("`{}` {} handles {}", plugin.id, plugin.version, hooks.join(", ")))
        }
        (Err(Trouble::Hidden), Looker::Another) => Finding::skipped("this user may not read it"),
        (Err(Trouble::Hidden), Looker::Root) => {
            Finding::failed("its files are not readable", "check their permissions and what a security module refuses")
        }
        (Err(Trouble::Wrong(words)), _) => Finding::failed(
            words,
            "repair the plugin, or take it out of `--plugin` and of `paths` in the section [plugins]",
        ),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    use crate::plugins::{Failure, Hook, Phase, Registration};
    let hook = |hook| Registration { hook, phase: Phase::Validate, priority: 0, failure: Failure::Closed };
    let plugin = PluginInfo {
        id: "policy".into(),
        version: "0.1.0".into(),
        digest: String::new(),
        hooks: vec![hook(Hook::SessionStart), hook(Hook::ToolExecuteBefore)],
    };
    let wrong = "plugin /plugins/policy cannot be loaded: cannot read /plugins/policy/plugin.toml: entity not found";
    let all = [
        judge(&Ok(plugin), Looker::Root),
        judge(&Err(Trouble::Wrong(wrong.into())), Looker::Root),
        judge(&Err(Trouble::Hidden), Looker::Root),
        judge(&Err(Trouble::Hidden), Looker::Another),
    ];
    let about = all.map(|finding| finding.about(LOAD, "/plugins/policy"));
    [none().of(LOAD)].into_iter().chain(about).collect()
}
