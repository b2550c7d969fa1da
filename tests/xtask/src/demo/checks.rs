//! What the demo promises about its result. Each check is a comparison that can fail.

use super::person::Person;
use super::repository;
use crate::error::{Error, Result};
use crate::json::Value;
use std::path::Path;

/// The hooks denied one call and rewrote another, the denied one never ran, and the turn ended as done.
///
/// # Errors
/// [`Error::Differs`].
pub fn hooks_decided(events: &[Value]) -> Result<()> {
    let of_kind = |kind: &'static str| events.iter().filter(move |event| event.text("type") == Some(kind));
    let about_tools = || of_kind("decided").filter(|event| event.text("hook") == Some("tool.execute.before"));
    for verdict in ["deny", "rewrite"] {
        let count = about_tools().filter(|event| event.text("verdict") == Some(verdict)).count();
        same(&format!("calls with the verdict `{verdict}`"), "1", &count.to_string())?;
    }
    let denied = about_tools().find(|event| event.text("verdict") == Some("deny"));
    let denied = denied.and_then(|event| event.text("call")).unwrap_or_default();
    let started = of_kind("tool_started").filter(|event| event.text("call") == Some(denied)).count();
    same("times the denied call ran", "0", &started.to_string())?;
    let outcomes: Vec<&str> = of_kind("turn_finished").map(outcome_of).collect();
    same("outcomes of turns", "done", &outcomes.join(", "))
}

/// `outcome` is a word in the event, or an object that holds the word.
fn outcome_of(event: &Value) -> &str {
    let nested = event.get("outcome").and_then(|outcome| outcome.text("outcome"));
    event.text("outcome").or(nested).unwrap_or("none")
}

/// The pull request is open, carries the person and the prompt's first line, and its branch is the session's.
///
/// # Errors
/// [`Error::Differs`].
pub fn pull_request(pull_request: &Value, person: &Person, title: &str, branch: &str) -> Result<()> {
    let author = pull_request.get("author");
    let part = |key| author.and_then(|author| author.text(key)).unwrap_or_default();
    let found = Person { name: part("name").to_owned(), email: part("email").to_owned() };
    same("author of the pull request", &person.to_string(), &found.to_string())?;
    same("state of the pull request", "open", pull_request.text("state").unwrap_or_default())?;
    same("title of the pull request", title, pull_request.text("title").unwrap_or_default())?;
    same("base of the pull request", "main", pull_request.text("base").unwrap_or_default())?;
    same("branch of the pull request", branch, pull_request.text("head").unwrap_or_default())
}

/// The bare repository holds the branch with the announced commit, by the person.
///
/// # Errors
/// [`Error::Differs`]; git's errors.
pub fn branch(bare: &Path, branch: &str, announced: &str, person: &Person) -> Result<()> {
    same("commit of the branch", announced, &repository::commit(bare, branch)?)?;
    same("author of the commit", &person.to_string(), &repository::author(bare, branch)?.to_string())
}

/// The branch changes just these files.
///
/// # Errors
/// [`Error::Differs`]; git's errors.
pub fn changed_files(bare: &Path, branch: &str, files: &[&str]) -> Result<()> {
    same("changed files", &files.join(", "), &repository::changed_files(bare, "main", branch)?.join(", "))
}

/// Compares two texts.
///
/// # Errors
/// [`Error::Differs`].
pub fn same(what: &str, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Differs { what: what.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const LOG: &[&str] = &[
        r#"{"type":"decided","hook":"tool.execute.before","call":"call_1","verdict":"pass"}"#,
        r#"{"type":"tool_started","call":"call_1"}"#,
        r#"{"type":"decided","hook":"tool.execute.before","call":"call_2","verdict":"deny"}"#,
        r#"{"type":"decided","hook":"tool.execute.before","call":"call_3","verdict":"rewrite"}"#,
        r#"{"type":"tool_started","call":"call_3"}"#,
        r#"{"type":"turn_finished","outcome":{"outcome":"done"}}"#,
    ];

    fn with(line: usize, text: &str) -> Vec<Value> {
        let mut lines = LOG.to_vec();
        lines[line] = text;
        lines.iter().map(|line| json::parse(line).unwrap()).collect()
    }

    #[test]
    fn a_run_as_promised_passes() {
        hooks_decided(&with(0, LOG[0])).unwrap();
    }

    #[test]
    fn a_denied_call_that_ran_is_noticed() {
        let error = hooks_decided(&with(4, r#"{"type":"tool_started","call":"call_2"}"#)).unwrap_err();
        assert!(error.to_string().contains("the denied call ran"), "{error}");
    }

    #[test]
    fn a_missing_rewrite_and_a_failed_turn_are_noticed() {
        let error = hooks_decided(&with(3, LOG[0])).unwrap_err();
        assert!(error.to_string().contains("`rewrite`"), "{error}");
        let error = hooks_decided(&with(5, r#"{"type":"turn_finished","outcome":{"outcome":"failed"}}"#)).unwrap_err();
        assert!(error.to_string().contains("failed"), "{error}");
    }

    #[test]
    fn a_pull_request_of_somebody_else_is_noticed() {
        let text = r#"{"author":{"name":"root","email":"root@localhost"},"state":"open","title":"t","base":"main",
                      "head":"ostler/x"}"#;
        let person = Person { name: "Somebody".into(), email: "somebody@example.org".into() };
        let error = pull_request(&json::parse(text).unwrap(), &person, "t", "ostler/x").unwrap_err();
        assert!(error.to_string().contains("author of the pull request"), "{error}");
    }
}
