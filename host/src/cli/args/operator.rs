//! The arguments of commands for who runs a host, and of those that only Ostler itself gives.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::List;
use crate::cli::settings::{ConfigFile, SettingFlags, judge, long_help, short_help};
use crate::config::{ByteSize, TimeSpan, Value};

const COMPLETIONS: &str = "\
Examples:
  For bash:
    ostler completions bash > ~/.local/share/bash-completion/completions/ostler
  For zsh, into a folder that $fpath names:
    ostler completions zsh > ~/.zfunc/_ostler
  For fish:
    ostler completions fish > ~/.config/fish/completions/ostler.fish
";

#[derive(Debug, Args)]
pub(in crate::cli) struct Images {
    #[command(flatten)]
    pub file: ConfigFile,

    #[arg(long, global = true, value_name = "DIR", value_parser = judge("host.data"),
        help = short_help("host.data"), long_help = long_help("host.data"))]
    pub data: Option<Value>,

    #[command(subcommand)]
    pub command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImagesCommand {
    /// Import a root file system as an image
    Import {
        /// Archive of the root file system
        tar: PathBuf,

        /// Name of the image
        #[arg(long, value_name = "NAME")]
        name: String,

        /// Most bytes that its files may have together, such as `20G`; when absent a hundred times the archive, but at
        /// least 1G and at most 64G
        #[arg(long, value_name = "SIZE")]
        max_size: Option<ByteSize>,

        /// Most files and folders that it may have
        #[arg(long, default_value_t = 2_000_000, value_name = "NUMBER")]
        max_entries: u64,

        /// Longest time that it may be unpacked, such as `30m`
        #[arg(long, default_value = "30m", value_name = "TIME")]
        max_time: TimeSpan,
    },
    /// List images
    List(List),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Plugins {
    #[command(subcommand)]
    pub command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PluginsCommand {
    /// List the plugins of the running host, with the hooks that each takes part in
    List(List),
    /// Make a component of a core WebAssembly module that carries its interface
    Componentize {
        /// The core module
        core: PathBuf,

        /// Where the component goes
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    #[command(flatten)]
    pub file: ConfigFile,

    #[arg(long, value_name = "DIR", value_parser = judge("host.data"),
        help = short_help("host.data"), long_help = long_help("host.data"))]
    pub data: Option<Value>,

    /// Only lines about this session
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,

    /// Only lines about this request, such as an error names it
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,

    /// Only lines of this level and above
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub level: Option<Level>,

    /// Only so many lines, the last ones
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub lines: Option<usize>,

    /// Go on with what is written, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,

    /// Print the lines as they are: JSON
    #[arg(long)]
    pub json: bool,
}

/// Levels of the log, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// What only helps to find a defect
    Trace,
    /// What helps to understand
    Debug,
    /// What happens
    Info,
    /// What should not be so
    Warn,
    /// What failed
    Error,
}

impl Level {
    /// The level of a line, by its name there.
    pub fn of(name: &str) -> Option<Self> {
        Self::from_str(name, true).ok()
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Config {
    #[command(flatten)]
    pub file: ConfigFile,

    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Show every value that holds, as a file that would say the same
    ///
    /// With flags of `ostler up`: what would hold with them. Keys of providers are shown as where they come from.
    Show {
        /// Say of each value where it was said: default, file, environment or flag
        #[arg(long)]
        origin: bool,

        /// Print JSON, with origins
        #[arg(long, conflicts_with = "origin")]
        json: bool,

        #[command(flatten)]
        settings: Box<SettingFlags>,
    },
    /// Check the file, the environment and the files with keys; tell everything that is wrong
    Validate {
        /// File to check; the one that `ostler up` would read when absent
        #[arg(value_name = "FILE", conflicts_with = "config")]
        path: Option<PathBuf>,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
}

#[derive(Debug, Args)]
#[command(after_long_help = COMPLETIONS)]
pub(in crate::cli) struct Completions {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Man {
    /// Write the page of every command into this folder
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,

    /// Ask no provider of models
    #[arg(long)]
    pub offline: bool,

    #[command(flatten)]
    pub file: ConfigFile,

    #[command(flatten)]
    pub settings: Box<SettingFlags>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InternalProbe {
    /// What is to be tried as JSON
    pub plan: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InternalUnpack {
    /// What is to be unpacked as JSON
    pub plan: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InternalLauncher {
    /// Its configuration as JSON
    pub configuration: String,
}
