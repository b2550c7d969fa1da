//! Is what a client sent acceptable? Pure checks whose errors name the field, the value and what would be right.

use ostler_protocol::ErrorCode;
use ostler_protocol::api::{CreateSession, MAX_BRANCH, MAX_MODEL, MAX_PROMPT, MAX_REPOSITORY, SubmitPrompt};
use ostler_protocol::event::Person;

use super::ApiFailure;

const MAX_NAME: usize = 200;
/// The longest address that mail can be delivered to (RFC 3696, erratum 1690).
const MAX_EMAIL: usize = 254;

/// A new session. Whether the repository and the branch exist is for the forge to say.
pub(super) fn session(request: &CreateSession) -> Result<(), ApiFailure> {
    repository(&request.repository)?;
    person(&request.author)?;
    if let Some(branch) = &request.branch {
        line("branch", branch, MAX_BRANCH)?;
    }
    request.model.as_deref().map_or(Ok(()), |model| line("model", model, MAX_MODEL))
}

/// A prompt.
pub(super) fn prompt(prompt: &SubmitPrompt) -> Result<(), ApiFailure> {
    let bytes = prompt.text.len();
    if bytes > MAX_PROMPT {
        let message = format!("the prompt has {bytes} bytes, the limit is {MAX_PROMPT} bytes");
        return Err(ApiFailure::new(ErrorCode::TooLarge, message)
            .with_hint("put long material into a file of the repository and name that file in the prompt"));
    }
    if prompt.text.trim().is_empty() {
        return Err(ApiFailure::bad_request("the prompt is empty"));
    }
    prompt.author.as_ref().map_or(Ok(()), person)
}

/// A repository's name: 1 to 100 characters of `[a-z0-9._-]`, beginning with a letter or digit. It becomes the name of
/// a folder, so `..`, a trailing `.git` and a trailing dot are no names either.
pub(super) fn repository(name: &str) -> Result<(), ApiFailure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = (1..=MAX_REPOSITORY).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
        && !name.contains("..")
        && !name.ends_with(".git")
        && !name.ends_with('.');
    if fits {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_REPOSITORY).flat_map(char::escape_debug).collect();
    Err(ApiFailure::bad_request(format!("`{shown}` is not a repository name")).with_hint(
        "a name has 1 to 100 characters of a-z, 0-9, `.`, `_` and `-`, begins with a letter or digit, holds no `..` \
         and does not end with `.git` or a dot",
    ))
}

/// A blob's digest.
pub(super) fn digest(text: &str) -> Result<(), ApiFailure> {
    let digits = text.strip_prefix("sha256:").unwrap_or("");
    if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(ApiFailure::bad_request("a digest is `sha256:` and 64 lowercase hexadecimal digits"))
}

/// Git writes `Name <email>` into one line, so neither may hold what would end it.
pub(super) fn person(person: &Person) -> Result<(), ApiFailure> {
    line("author.name", &person.name, MAX_NAME)?;
    line("author.email", &person.email, MAX_EMAIL)?;
    for (field, value) in [("author.name", &person.name), ("author.email", &person.email)] {
        if value.contains(['<', '>']) {
            return Err(ApiFailure::bad_request(format!("`{field}` holds `<` or `>`, which git cannot store")));
        }
    }
    let parts = person.email.split_once('@');
    if parts.is_none_or(|(user, domain)| user.is_empty() || domain.is_empty()) || person.email.contains(' ') {
        let message = format!("`author.email` is `{}`, which is not an e-mail address", person.email);
        return Err(ApiFailure::bad_request(message).with_hint("such as `ada@example.org`"));
    }
    Ok(())
}

/// One line of text that says something.
fn line(field: &str, value: &str, limit: usize) -> Result<(), ApiFailure> {
    let characters = value.chars().count();
    if characters > limit {
        let message = format!("`{field}` has {characters} characters, the limit is {limit}");
        return Err(ApiFailure::new(ErrorCode::TooLarge, message));
    }
    if value.trim().is_empty() {
        return Err(ApiFailure::bad_request(format!("`{field}` is empty")));
    }
    if value.chars().any(char::is_control) {
        return Err(ApiFailure::bad_request(format!("`{field}` holds a line break or another control character")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_name_is_a_plain_folder_name() {
        for name in ["demo", "a", "0-day", "my.repo_x-1"] {
            assert!(repository(name).is_ok(), "{name}");
        }
        let long = "a".repeat(101);
        for name in ["", ".", "..", "../etc", "a/b", "Demo", "-a", ".git", "a.git", "a..b", "a.", "ä", "a\n", &long] {
            assert!(repository(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_person_fits_into_one_line_of_git() {
        let check = |name: &str, email: &str| person(&Person { name: name.into(), email: email.into() }).is_ok();
        assert!(check("Ada Löwe", "ada@example.org"));
        for (name, email) in [
            ("", "a@b"),
            (" ", "a@b"),
            ("A\nB", "a@b"),
            ("A <x>", "a@b"),
            ("A", "a"),
            ("A", "@b"),
            ("A", "a@"),
            ("A", "a b@c"),
            ("A", "a@b>"),
        ] {
            assert!(!check(name, email), "{name:?} {email:?}");
        }
        assert!(!check(&"x".repeat(201), "a@b"));
    }

    #[test]
    fn a_long_prompt_is_told_both_sizes() {
        let text = "x".repeat(MAX_PROMPT + 1);
        let failure = prompt(&SubmitPrompt { text, author: None }).unwrap_err();
        assert_eq!(failure.public.message, "the prompt has 262145 bytes, the limit is 262144 bytes");
        assert!(prompt(&SubmitPrompt { text: "x".repeat(MAX_PROMPT), author: None }).is_ok());
        assert!(prompt(&SubmitPrompt { text: " \n".into(), author: None }).is_err());
    }
}
