//! The flags that set values of the configuration, and the file that they are laid over.
//!
//! Names, defaults and words come from the table of keys in `config`; here stands only which flag takes what. A test
//! keeps both alike.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::config::{DEFAULT_FILE, Fallback, Flag, Inputs, Key, Loaded, Value, env};

/// Which file is read.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigFile {
    #[arg(
        long, global = true, value_name = "FILE",
        help = format!("File of the configuration [env: {}] [default: {DEFAULT_FILE}]", env::CONFIG),
        long_help = format!("File of the configuration\n\n[env: {}]\n[default: {DEFAULT_FILE}]", env::CONFIG)
    )]
    pub config: Option<PathBuf>,
}

/// Flags of `ostler up`.
#[derive(Debug, Args)]
pub(super) struct SettingFlags {
    #[arg(long, value_name = "DIR", value_parser = judge("host.data"),
        help = short_help("host.data"), long_help = long_help("host.data"))]
    pub data: Option<Value>,

    #[arg(long, value_name = "ADDRESS", value_parser = judge("host.listen"),
        help = short_help("host.listen"), long_help = long_help("host.listen"))]
    pub listen: Option<Value>,

    #[arg(long, value_name = "NAME", value_parser = judge("agent.model"),
        help = short_help("agent.model"), long_help = long_help("agent.model"))]
    pub model: Option<Value>,

    #[arg(long, value_name = "FILE", value_parser = judge("providers.*.script"),
        help = short_help("providers.*.script"), long_help = long_help("providers.*.script"))]
    pub script: Option<Value>,

    #[arg(long, value_name = "NAME", value_parser = judge("sandbox.image"),
        help = short_help("sandbox.image"), long_help = long_help("sandbox.image"))]
    pub image: Option<Value>,

    #[arg(long = "plugin", value_name = "DIR", value_parser = judge("plugins.paths"),
        help = short_help("plugins.paths"), long_help = long_help("plugins.paths"))]
    pub plugins: Vec<Value>,

    #[arg(long, value_name = "SIZE", value_parser = judge("sandbox.memory"),
        help = short_help("sandbox.memory"), long_help = long_help("sandbox.memory"))]
    pub memory: Option<Value>,

    #[arg(long, value_name = "NUMBER", value_parser = judge("sandbox.pids"),
        help = short_help("sandbox.pids"), long_help = long_help("sandbox.pids"))]
    pub pids: Option<Value>,

    #[arg(long, value_name = "CORES", value_parser = judge("sandbox.cpus"),
        help = short_help("sandbox.cpus"), long_help = long_help("sandbox.cpus"))]
    pub cpus: Option<Value>,

    #[arg(long, value_name = "SIZE", value_parser = judge("sandbox.disk"),
        help = short_help("sandbox.disk"), long_help = long_help("sandbox.disk"))]
    pub disk: Option<Value>,

    #[arg(long, value_name = "URL", value_parser = judge("telemetry.otlp_endpoint"),
        help = short_help("telemetry.otlp_endpoint"), long_help = long_help("telemetry.otlp_endpoint"))]
    pub otlp_endpoint: Option<Value>,

    #[arg(long = "allow-host", value_name = "NAME", value_parser = judge("host.allowed_hosts"),
        help = short_help("host.allowed_hosts"), long_help = long_help("host.allowed_hosts"))]
    pub allowed_hosts: Vec<Value>,

    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = judge("host.allowed_origins"),
        help = short_help("host.allowed_origins"), long_help = long_help("host.allowed_origins"))]
    pub allowed_origins: Vec<Value>,
}

impl ConfigFile {
    /// What holds with these flags and the environment of the process.
    pub(super) fn load(self, flags: Vec<Flag>) -> Result<Loaded, CliError> {
        let folder = PathBuf::from(".");
        let folder = std::path::absolute(&folder).map_err(|source| CliError::File {
            operation: "find",
            path: folder.clone(),
            source,
        })?;
        let variables = |name: &str| std::env::var_os(name);
        let inputs = Inputs { file: self.config, flags, ..Inputs::new(&variables, folder) };
        Ok(inputs.load()?)
    }
}

impl SettingFlags {
    /// The flags that were given, as values of the table.
    pub(super) fn given(self) -> Vec<Flag> {
        let single = [
            ("host.data", self.data),
            ("host.listen", self.listen),
            ("agent.model", self.model),
            ("providers.*.script", self.script),
            ("sandbox.image", self.image),
            ("sandbox.memory", self.memory),
            ("sandbox.pids", self.pids),
            ("sandbox.cpus", self.cpus),
            ("sandbox.disk", self.disk),
            ("telemetry.otlp_endpoint", self.otlp_endpoint),
        ];
        let lists = [
            ("plugins.paths", self.plugins),
            ("host.allowed_hosts", self.allowed_hosts),
            ("host.allowed_origins", self.allowed_origins),
        ];
        let single = single.into_iter().filter_map(|(key, value)| Some(Flag { key, value: value? }));
        let lists = lists.into_iter().filter(|(_, members)| !members.is_empty());
        let lists = lists.map(|(key, members)| Flag { key, value: Value::joined(members) });
        single.chain(lists).collect()
    }
}

/// A parser that judges as the file and the environment are judged.
pub(super) fn judge(path: &'static str) -> impl Fn(&str) -> Result<Value, String> + Clone + Send + Sync + 'static {
    move |text| match Key::at(path) {
        Some(key) => key.kind.read(text).map_err(|wrong| wrong.to_string()),
        None => Err(format!("there is no key `{path}`")),
    }
}

/// What a flag means, in one line.
pub(super) fn short_help(path: &str) -> String {
    notes(path).join(" ")
}

/// What a flag means, with where else it can be said.
pub(super) fn long_help(path: &str) -> String {
    let notes = notes(path);
    let key = path.replace('*', "scripted");
    match notes.split_first() {
        Some((meaning, notes)) => {
            let notes: String = notes.iter().map(|note| format!("\n{note}")).collect();
            format!("{meaning}\n{notes}\n[file: {key}]")
        }
        None => String::new(),
    }
}

/// The meaning, then the environment variable and the default in brackets.
fn notes(path: &str) -> Vec<String> {
    let Some(key) = Key::at(path) else { return Vec::new() };
    let more = if key.kind.is_list() { "; may be given more than once, replaces the file's list" } else { "" };
    let mut notes = vec![format!("{}{more}", key.meaning)];
    notes.extend(key.variables.iter().map(|(_, variable)| format!("[env: {variable}]")));
    if let Fallback::Value(text) = key.default {
        notes.push(format!("[default: {text}]"));
    }
    notes
}
