//! `ostler completions` and `ostler man`: the tree of commands in the words of a shell and of `man`. They need no host.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::CliError;
use super::args::{Arguments, Completions, Man};
use super::output::Printer;

pub(super) fn completions(completions: Completions, printer: &mut Printer) -> Result<(), CliError> {
    let text = script(completions.shell);
    printer.data(&text)
}

/// What the shell is to be told, from the tree of commands.
pub(super) fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut visible(), "ostler", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The tree without the commands that only Ostler itself gives: shells would be told those too.
fn visible() -> Command {
    let whole = Arguments::command();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("ostler").version(env!("CARGO_PKG_VERSION")).args(whole.get_arguments().cloned()).subcommands(commands)
}

pub(super) fn man(man: Man, printer: &mut Printer) -> Result<(), CliError> {
    match man.output {
        Some(folder) => pages(&folder),
        None => {
            let mut bytes = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut bytes).map_err(CliError::Output)?;
            printer.data(&String::from_utf8_lossy(&bytes))
        }
    }
}

/// Writes the page of every command into `folder`, which is made where it is not there.
fn pages(folder: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::File { operation: "write the pages into", path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)
}
