//! Who asks in the demo: the person that git knows.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process;

/// A person, as git and pull requests name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Full name.
    pub name: String,
    /// E-mail address.
    pub email: String,
}

impl Person {
    /// Takes name and address from git's configuration as it is in `directory`, and asks on a terminal for what is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Missing`] with the commands that set them, where nobody can be asked.
    pub fn find(directory: &Path) -> Result<Self> {
        Ok(Self {
            name: setting(directory, "user.name", "Your name, for the commit and the pull request")?,
            email: setting(directory, "user.email", "Your e-mail address")?,
        })
    }
}

impl std::fmt::Display for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

fn setting(directory: &Path, key: &str, question: &str) -> Result<String> {
    let mut git = Command::new("git");
    let captured =
        process::capture(git.current_dir(directory).args(["config", "--get", key]), Duration::from_secs(10))?;
    let value = captured.stdout.trim();
    if captured.status.success() && !value.is_empty() {
        return Ok(value.to_owned());
    }
    let missing = || Error::Missing {
        what: format!("git does not know your {key}, which the pull request will carry"),
        hint: "git config --global user.name \"…\" && git config --global user.email \"…\"".to_owned(),
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(missing());
    }
    let _ = write!(io::stderr().lock(), "{question}: ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Error::file("read", "standard input"))?;
    let answer = line.trim();
    if answer.is_empty() { Err(missing()) } else { Ok(answer.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_taken_from_the_configuration_of_the_repository() {
        let directory = std::env::temp_dir().join(format!("xtask-person-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let git = |arguments: &[&str]| {
            let status = Command::new("git").current_dir(&directory).args(arguments).status().unwrap();
            assert!(status.success());
        };
        git(&["init", "--quiet"]);
        git(&["config", "user.name", "Somebody Else"]);
        git(&["config", "user.email", "somebody@example.org"]);
        let person = Person::find(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(person.to_string(), "Somebody Else <somebody@example.org>");
    }
}
