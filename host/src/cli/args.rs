//! The tree of commands and their arguments. A table: nothing is decided here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ostler_protocol::{PullRequestId, SessionId};

use super::ids::Given;
use super::settings::{ConfigFile, SettingFlags, judge, long_help, short_help};
use super::{exit, tui};
use crate::config::{ByteSize, TimeSpan, Value, env};

const EXAMPLES: &str = "\
Examples:
  Start a host:
    ostler up --script examples/demo-script.toml
  Work on the repository in this folder:
    ostler run \"make the failing test pass\"
  Watch a session, and prompt it again:
    ostler attach ses_01jd3kq4v5w6x7y8z9a0b1c2d3
  See what came out:
    ostler pr list
";

const COMPLETIONS: &str = "\
Examples:
  For bash:
    ostler completions bash > ~/.local/share/bash-completion/completions/ostler
  For zsh, into a folder that $fpath names:
    ostler completions zsh > ~/.zfunc/_ostler
  For fish:
    ostler completions fish > ~/.config/fish/completions/ostler.fish
";

const GLOBAL: &str = "Options of every command";

/// Hosts coding agents: a prompt goes in, a pull request comes out.
#[derive(Debug, Parser)]
#[command(name = "ostler", version, after_long_help = format!("{EXAMPLES}\n{}", exit::TABLE), max_term_width = 100)]
pub struct Arguments {
    /// Address of the host, such as `http://127.0.0.1:7878`; found by itself on the machine that it runs on
    #[arg(long, global = true, env = env::URL, hide_env_values = true, help_heading = GLOBAL, value_name = "URL")]
    pub url: Option<String>,

    /// When to use colour: `auto` (on a terminal, unless `NO_COLOR` is set), `always` or `never`
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = ColorChoice::Auto,
        hide_possible_values = true,
        value_name = "WHEN",
        help_heading = GLOBAL
    )]
    pub color: ColorChoice,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a host and stay with it until Ctrl-C
    Up(Box<Up>),
    /// Give the agent a prompt on a repository and watch until its pull request is open
    Run(Run),
    /// Give a session its next prompt and watch until its work is published
    Prompt(Prompt),
    /// Watch a session and prompt it, on a screen of its own; in plain lines where there is no terminal
    Attach(Attach),
    /// Stop the turn under way; the session stays
    Stop(Stop),
    /// List sessions, the newest first
    Sessions(Listing),
    /// Show what a session changed
    Diff(Diff),
    /// Print a session's log as it is now
    Events(Events),
    /// List and show pull requests
    Pr(Pr),
    /// Open a shell in a session's sandbox, or come back to one
    Shell(OpenShell),
    /// Start, list, read and stop services and commands in the background of a session's sandbox
    Process(Process),
    /// List the ports on which something listens in a session's sandbox
    Ports(Ports),
    /// Show a port of a session's sandbox in a browser
    Preview(Preview),
    /// List the repositories of the host
    Repositories(Listing),
    /// Import and list images of workspaces
    Images(Images),
    /// List the plugins of the host, and prepare plugins
    Plugins(Plugins),
    /// Show the log of the host
    Logs(Logs),
    /// Show and check the configuration of the host
    Config(Config),
    /// Print what a shell needs to complete commands and options
    Completions(Completions),
    /// Print the page for `man`, or write those of all commands into a folder
    Man(Man),
    /// Check this machine and the host that runs on it, and say what to do
    ///
    /// Needs neither root nor a host, and changes nothing. What it cannot look at is skipped and says why. With flags of
    /// `ostler up`: what would hold with them. Ends with 8 when something failed.
    Doctor(Doctor),
    #[command(hide = true)]
    InternalProbe(InternalProbe),
    #[command(hide = true)]
    InternalLauncher(InternalLauncher),
    #[command(hide = true)]
    InternalUnpack(InternalUnpack),
}

#[derive(Debug, Args)]
pub(super) struct Up {
    #[command(flatten)]
    pub file: ConfigFile,

    #[command(flatten)]
    pub settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// What to do; `-` reads it from stdin
    pub prompt: String,

    /// Repository on disk whose commits the agent starts from
    #[arg(long, default_value = ".", value_name = "PATH")]
    pub repo: PathBuf,

    /// Name of the repository on the host; the folder's name when absent
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,

    /// Branch to start from; the current one when absent
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,

    #[command(flatten)]
    pub author: AuthorFlags,

    /// Model; the host's default when absent
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Print events as JSON, one per line
    #[arg(long)]
    pub json: bool,
}

/// Who gives a prompt.
#[derive(Debug, Args)]
pub(super) struct AuthorFlags {
    /// Your name; git's `user.name` when absent
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Your e-mail address; git's `user.email` when absent
    #[arg(long, value_name = "EMAIL")]
    pub email: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Prompt {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// What to do next; `-` reads it from stdin
    pub prompt: String,

    #[command(flatten)]
    pub author: AuthorFlags,

    /// Return as soon as the host has the prompt, and print its id
    #[arg(long)]
    pub no_wait: bool,

    /// Print events as JSON, one per line; with `--no-wait` the ids
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_long_help = format!("Keys on the screen:\n{}", tui::sheet()))]
pub(super) struct Attach {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    #[command(flatten)]
    pub author: AuthorFlags,

    /// Print lines, also on a terminal
    #[arg(long)]
    pub plain: bool,

    /// Print events as JSON, one per line
    #[arg(long)]
    pub json: bool,

    /// Print lines, and end when the session has nothing left to do
    #[arg(long)]
    pub follow_until_idle: bool,
}

#[derive(Debug, Args)]
pub(super) struct Stop {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// Print the session as JSON
    #[arg(long)]
    pub json: bool,
}

/// A list that the host gives page by page.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// Most rows to show
    #[arg(long, default_value_t = 50, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// Print the diff with where it was read as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// Print events as JSON, one per line
    #[arg(long)]
    pub json: bool,

    /// Only events after this one
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub after: u64,
}

#[derive(Debug, Args)]
#[command(after_long_help = "Ctrl-] leaves the shell, which goes on: the same command comes back to it.")]
pub(super) struct OpenShell {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// Name of the terminal: comes back to it where it is open, opens it where it is not
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(super) struct Process {
    #[command(subcommand)]
    pub command: ProcessCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ProcessCommand {
    /// Start a command that goes on in the background
    Start {
        /// Which session: its id, or the beginning of it
        session: Given<SessionId>,

        /// Command line for bash
        command: String,

        /// Name of the command; chosen by the host when absent
        #[arg(long, value_name = "NAME")]
        name: Option<String>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the services of the repository and the commands, those of the agent too
    List {
        /// Which session: its id, or the beginning of it
        session: Given<SessionId>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is kept of the output of one
    Output {
        /// Which session: its id, or the beginning of it
        session: Given<SessionId>,

        /// Name of the command
        name: String,

        /// Go on until the command ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Start a service of the repository, again where it runs
    Restart {
        /// Which session: its id, or the beginning of it
        session: Given<SessionId>,

        /// Name of the service
        name: String,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop one, with everything that it started; a service stays stopped until it is started
    Stop {
        /// Which session: its id, or the beginning of it
        session: Given<SessionId>,

        /// Name of the command
        name: String,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Ports {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Preview {
    /// Which session: its id, or the beginning of it
    pub session: Given<SessionId>,

    /// The port in the sandbox
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Print the preview as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Pr {
    #[command(subcommand)]
    pub command: PrCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum PrCommand {
    /// List pull requests, the newest first
    List(Listing),
    /// Show a pull request and its diff
    Show {
        /// Which pull request: its id, or the beginning of it
        id: Given<PullRequestId>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Images {
    #[command(flatten)]
    pub file: ConfigFile,

    #[arg(long, global = true, value_name = "DIR", value_parser = judge("host.data"),
        help = short_help("host.data"), long_help = long_help("host.data"))]
    pub data: Option<Value>,

    #[command(subcommand)]
    pub command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImagesCommand {
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
pub(super) struct Plugins {
    #[command(subcommand)]
    pub command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum PluginsCommand {
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
pub(super) struct Logs {
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
pub(super) struct Config {
    #[command(flatten)]
    pub file: ConfigFile,

    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
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
pub(super) struct Completions {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write the page of every command into this folder
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
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
pub(super) struct InternalProbe {
    /// What is to be tried as JSON
    pub plan: String,
}

#[derive(Debug, Args)]
pub(super) struct InternalUnpack {
    /// What is to be unpacked as JSON
    pub plan: String,
}

#[derive(Debug, Args)]
pub(super) struct InternalLauncher {
    /// Its configuration as JSON
    pub configuration: String,
}
