//! Pages for `man` and completions for shells: the packaged program writes them itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{SHORT, tree};
use crate::error::{Error, Result};
use crate::layout;
use crate::process;

/// Where each shell looks for what packages bring.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/ostler"),
    ("zsh", "usr/share/zsh/vendor-completions/_ostler"),
    ("fish", "usr/share/fish/vendor_completions.d/ostler.fish"),
];

/// Writes both into `root`.
///
/// # Errors
/// [`Error::Missing`] when the program has no command for them; [`Error::Command`] when it fails.
pub fn write(program: &Path, root: &Path) -> Result<()> {
    let help = process::read(Command::new(program).arg("--help").env("NO_COLOR", "1"), SHORT)?;
    if let Some(absent) = ["man", "completions"].into_iter().find(|verb| !offers(&help, verb)) {
        return Err(Error::Missing {
            what: format!("the program that is to be packaged has no command `{absent}`"),
            hint: "package one that was built of these sources".to_owned(),
        });
    }
    for (shell, path) in COMPLETIONS {
        let text = process::read(Command::new(program).args(["completions", shell]), SHORT)?;
        tree::write(&root.join(path), &text)?;
    }
    pages(program, root)
}

fn pages(program: &Path, root: &Path) -> Result<()> {
    let folder = layout::make_directory(&root.join("usr/share/man/man1"))?;
    process::read(Command::new(program).args(["man", "--output"]).arg(&folder), SHORT)?;
    let failed = || Error::file("list", &folder);
    let written = fs::read_dir(&folder).map_err(failed())?;
    for folder in folder.ancestors().take(2) {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, mode).map_err(Error::file("set the mode of", folder))?;
    }
    let mut pages = 0;
    for page in written {
        let page = page.map_err(failed())?.path();
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644)).map_err(Error::file("set the mode of", &page))?;
        pages += 1;
    }
    if pages == 0 {
        let what = "`ostler man --output`".to_owned();
        return Err(Error::Malformed { what, problem: "it wrote no page".to_owned() });
    }
    Ok(())
}

/// Whether the help lists a command.
fn offers(help: &str, verb: &str) -> bool {
    help.lines().any(|line| line.starts_with("  ") && line.split_whitespace().next() == Some(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_manual_is_not_packaged() {
        // It says nothing at all, and that successfully.
        let error = write(Path::new("/bin/true"), Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("no command `man`"), "{error}");
    }

    #[test]
    fn a_command_is_offered_where_the_help_lists_it() {
        let help = "Commands:\n  up    Run the host\n  man   Print the page\n\nExamples:\n  Scripts for completions\n";
        assert!(offers(help, "up") && offers(help, "man"));
        assert!(!offers(help, "completions"));
    }
}
