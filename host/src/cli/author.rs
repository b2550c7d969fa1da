//! Who gives a prompt: the flags, else git's configuration, else the person at the terminal.

use std::path::Path;

use ostler_protocol::event::Person;

use super::args::AuthorFlags;
use super::{CliError, git};

/// The author of a prompt. `folder` is where git's configuration holds; `ask` puts a question to the person.
pub async fn author(
    flags: &AuthorFlags,
    folder: &Path,
    mut ask: impl FnMut(&str) -> Option<String>,
) -> Result<Person, CliError> {
    let name = known(flags.name.as_deref(), folder, "user.name").await?;
    let name = name
        .or_else(|| ask("Your name, for commits and the pull request:"))
        .ok_or(CliError::NoAuthor { what: "name", key: "user.name" })?;
    let email = known(flags.email.as_deref(), folder, "user.email").await?;
    let email = email
        .or_else(|| ask("Your e-mail address:"))
        .ok_or(CliError::NoAuthor { what: "e-mail address", key: "user.email" })?;
    Ok(Person { name, email })
}

async fn known(flag: Option<&str>, folder: &Path, key: &str) -> Result<Option<String>, CliError> {
    match flag {
        Some(flag) => Ok(Some(flag.to_owned())),
        None => git::config(folder, key).await,
    }
}
