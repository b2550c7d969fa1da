//! The reference page of the command line, made from the tree of commands and compared with the one in the book.
//! `UPDATE_DOCS=1 cargo test -p ostler the_reference_page` writes it anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::arguments::commands;
use crate::cli::exit;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/cli.md");

const INTRODUCTION: &str = "\
# Command line

This page is made from the program itself; `ostler COMMAND --help` says the same.

Data goes to stdout, everything else to stderr: what a pipe or a file gets is the data alone. Reading commands take
`--json`; commands that watch then print one event per line. Colour is for terminals and never the only sign of anything;
`--color` and `NO_COLOR` decide about it. The host on this machine is found by itself, and so is its token; `OSTLER_URL` and
`OSTLER_TOKEN` say where another one is. An error is told as `error: …`, with `hint: …` where there is something to do.
";

fn page() -> String {
    let commands = commands(100);
    let mut page = INTRODUCTION.to_owned();
    for command in &commands {
        chapter(&mut page, &commands[0], command).unwrap();
    }
    exit_codes(&mut page).unwrap();
    page.trim_end().to_owned() + "\n"
}

/// A command. What every command takes stands with the first, the whole.
fn chapter(page: &mut String, whole: &Command, command: &Command) -> std::fmt::Result {
    let name = command.get_bin_name().unwrap_or("ostler").to_owned();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let end = if about.ends_with('.') { "" } else { "." };
    writeln!(page, "\n## `{name}`\n\n{about}{end}\n")?;
    let usage = command.clone().render_usage().to_string();
    writeln!(page, "```text\n{}\n```", usage.trim_start_matches("Usage: "))?;
    let shown = |argument: &&Arg| {
        let id = argument.get_id();
        let shared = name != "ostler" && whole.get_arguments().any(|argument| argument.get_id() == id);
        id != "help" && !argument.is_hide_set() && !shared
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !arguments.is_empty() {
        writeln!(page, "\n| Argument | Meaning | Default | Environment |\n|---|---|---|---|")?;
    }
    for argument in arguments {
        row(page, argument)?;
    }
    // The exit codes have a chapter of their own.
    let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let more = more.replace(exit::TABLE, "");
    if !more.trim().is_empty() {
        writeln!(page, "\n```text\n{}\n```", more.trim_end())?;
    }
    Ok(())
}

fn row(page: &mut String, argument: &Arg) -> std::fmt::Result {
    let value = argument.get_value_names().map_or(String::new(), |names| names[0].to_string());
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let name = match (argument.get_short(), argument.get_long()) {
        (_, None) => value,
        (short, Some(long)) => {
            let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
            let value = if takes { format!(" {value}") } else { String::new() };
            format!("{short}--{long}{value}")
        }
    };
    let required = if argument.is_required_set() { " (required)" } else { "" };
    let meaning = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = if takes && !values.is_empty() && !argument.is_hide_possible_values_set() {
        format!(": {}", values.join(", "))
    } else {
        String::new()
    };
    let defaults = argument.get_default_values();
    let default =
        if takes && !defaults.is_empty() { format!("`{}`", defaults[0].to_string_lossy()) } else { String::new() };
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let cell = |text: String| text.replace('|', "\\|").replace('\n', " ");
    writeln!(page, "| `{name}`{required} | {} | {default} | {variable} |", cell(meaning + &values))
}

fn exit_codes(page: &mut String) -> std::fmt::Result {
    writeln!(page, "\n## Exit codes\n\n| Code | Means |\n|---|---|")?;
    for line in exit::TABLE.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        writeln!(page, "| {code} | {meaning} |")?;
    }
    writeln!(page, "\nWhich error of the host has which code: [errors](../errors.md).")
}

#[test]
fn the_reference_page_is_what_the_program_says() {
    let page = page();
    let path = Path::new(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/src/reference/cli.md is not up to date: run this test with UPDATE_DOCS=1");
}
