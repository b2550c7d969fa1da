//! What shells and `man` are told.

use std::fs;
use std::process::Command;

use clap::ValueEnum;
use clap_complete::Shell;

use super::arguments::commands;
use super::bench::printer;
use crate::cli::args::Man;
use crate::cli::manual;

/// What bash offers after these words.
fn offered(words: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("ostler");
    fs::write(&script, manual::script(Shell::Bash)).unwrap();
    let list = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let program = format!(
        "source '{}'; COMP_WORDS=({list}); COMP_CWORD={}; _ostler ostler '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let output = Command::new("bash").args(["--norc", "-c", &program]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(offered(&["ostler", "se"]), ["sessions"]);
    assert_eq!(offered(&["ostler", "pr", "s"]), ["show"]);
    assert_eq!(offered(&["ostler", "prompt", "--no"]), ["--no-wait"]);
    assert_eq!(offered(&["ostler", "sessions", "--color", "ne"]), ["never"]);
    assert!(!offered(&["ostler", ""]).contains(&"internal-launcher".to_owned()));
}

#[test]
fn every_shell_is_told_every_command() {
    for shell in Shell::value_variants() {
        let script = manual::script(*shell);
        for command in commands(100) {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
    }
}

#[test]
fn every_command_has_a_page_for_man() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("new/pages");
    let (mut printer, out, _) = printer();
    manual::man(Man { output: Some(pages.clone()) }, &mut printer).unwrap();
    assert_eq!(out.text(), "");
    let mut found: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let name = |command: &clap::Command| format!("{}.1", command.get_bin_name().unwrap_or("ostler").replace(' ', "-"));
    let mut expected: Vec<String> = commands(100).iter().map(name).collect();
    expected.sort();
    assert_eq!(found, expected);
    for page in found {
        let text = fs::read_to_string(pages.join(&page)).unwrap();
        for section in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(text.contains(section), "{page} lacks {section}");
        }
    }
}

#[test]
fn the_page_of_the_whole_goes_to_stdout() {
    let (mut printer, out, err) = printer();
    manual::man(Man { output: None }, &mut printer).unwrap();
    assert!(out.text().contains(".TH ostler 1") && out.text().contains("Exit codes"), "{}", out.text());
    assert_eq!(err.text(), "");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (mut printer, _, _) = printer();
    let error = manual::man(Man { output: Some(file.join("pages")) }, &mut printer).unwrap_err();
    assert_eq!(error.exit_code(), 8);
    assert!(error.to_string().contains("file/pages"), "{error}");
}
