//! The command line: a thin client of the HTTP API, plus the commands that run or prepare a host.
//!
//! ```text
//!  args (clap) ─► one file per command ─► client (HTTP, SSE) ─► follow ─► transcript ─► output
//!                                                           │           └ words
//!                                                           └► tui (attach on a terminal)
//! ```
//!
//! Owns the words that a person at a terminal reads. Only [`output`] prints: data goes to stdout, everything else to
//! stderr. Does not know sessions, stores or sandboxes; a command that needs them asks the host.

mod args;
mod exit;
mod settings;

mod attach;
mod author;
mod config;
mod doctor;
mod images;
mod internal;
mod listing;
mod logs;
mod manual;
mod plugins;
mod processes;
mod prompt;
mod pulls;
mod run;
mod sessions;
mod shell;
mod up;

mod feed;
mod follow;
mod progress;
mod transcript;
mod tui;
mod words;

mod client;
pub mod discovery;
mod error;
mod git;
mod ids;
pub mod listener;
mod output;
mod table;
mod terminal;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Parser;

pub use args::Arguments;
use args::{Command, Plugins, PluginsCommand};
use client::Client;
pub use error::CliError;
use output::Printer;

use crate::sse;

/// Reads the arguments of the process, does what they say, and tells how it went. Ends the process itself only
/// where clap does: for `--help`, `--version` and wrong arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut printer = Printer::of_process(arguments.color);
    match dispatch(arguments, &mut printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(arguments: Arguments, printer: &mut Printer) -> Result<(), CliError> {
    match arguments.command {
        // These start before any thread exists, because the launcher must.
        Command::Up(up) => up::execute(*up, printer),
        Command::InternalLauncher(launcher) => internal::launcher(launcher),
        Command::InternalProbe(probe) => internal::probe(&probe),
        Command::InternalUnpack(unpack) => internal::unpack(&unpack),
        Command::Images(images) => images::execute(images, printer),
        Command::Plugins(Plugins { command: PluginsCommand::Componentize { core, output } }) => {
            plugins::componentize(&core, &output)
        }
        Command::Config(config) => config::execute(config, printer),
        Command::Logs(logs) => logs::execute(logs, printer),
        Command::Completions(completions) => manual::completions(completions, printer),
        Command::Man(man) => manual::man(man, printer),
        Command::Doctor(doctor) => doctor::execute(doctor, printer),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| CliError::Runtime { source })?;
            runtime.block_on(ask(command, arguments.url, printer))
        }
    }
}

/// The commands that ask a running host.
async fn ask(command: Command, url: Option<String>, printer: &mut Printer) -> Result<(), CliError> {
    let client = Client::find(url)?;
    match command {
        Command::Run(run) => run::execute(run, &client, printer).await,
        Command::Prompt(prompt) => prompt::execute(prompt, &client, printer).await,
        Command::Attach(attach) => attach::execute(attach, &client, printer).await,
        Command::Stop(stop) => sessions::stop(stop, &client, printer).await,
        Command::Sessions(list) => sessions::list(list, &client, printer).await,
        Command::Diff(diff) => sessions::diff(diff, &client, printer).await,
        Command::Events(events) => sessions::events(events, &client, printer).await,
        Command::Shell(shell) => shell::execute(shell, &client, printer).await,
        Command::Process(process) => processes::execute(process, &client, printer).await,
        Command::Ports(ports) => processes::ports(ports, &client, printer).await,
        Command::Preview(preview) => processes::preview(preview, &client, printer).await,
        Command::Pr(pull) => pulls::execute(pull, &client, printer).await,
        Command::Plugins(Plugins { command: PluginsCommand::List(list) }) => {
            plugins::list(list, &client, printer).await
        }
        Command::Plugins(_) => Ok(()),
        Command::Repositories(list) => sessions::repositories(list, &client, printer).await,
        Command::Up(_) | Command::InternalLauncher(_) | Command::InternalProbe(_) | Command::Doctor(_) => Ok(()),
        Command::InternalUnpack(_) | Command::Images(_) | Command::Config(_) | Command::Logs(_) => Ok(()),
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}
