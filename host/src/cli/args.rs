//! The tree of commands and their arguments. A table: nothing is decided here.

mod operator;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ostler_protocol::{PullRequestId, SessionId};

pub use operator::Level;
pub(super) use operator::{
    Completions, Config, ConfigCommand, Doctor, Images, ImagesCommand, InternalLauncher, InternalProbe, InternalUnpack,
    Logs, Man, Plugins, PluginsCommand,
};

use super::ids::Given;
use super::settings::{ConfigFile, SettingFlags};
use super::{exit, tui};
use crate::config::env;

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
