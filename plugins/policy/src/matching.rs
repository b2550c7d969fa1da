//! Comparing: names with `*`, paths with globs, and the texts of arguments.

use serde_json::Value;

/// Whether a name fits a pattern in which `*` stands for any characters, also none.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    wildcard(pattern.as_bytes(), name.as_bytes())
}

/// `*` any bytes, `?` one byte. Linear in practice: one step back to the last `*`.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    (p, t) = (star + 1, from + 1);
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether a path fits a glob: `*` and `?` within one part, `**` over parts. A glob without `/` is about the last part
/// only, wherever it is.
///
/// The path is first made plain by its text alone: `.` and `..` are resolved and the working directory is taken off.
/// Symbolic links are not followed, so a link inside the workspace can point at a file under another name.
pub(crate) fn path_matches(glob: &str, path: &str, working_directory: &str) -> bool {
    let path = plain_path(path, working_directory);
    if !glob.contains('/') {
        let last = path.rsplit('/').next().unwrap_or_default();
        return wildcard(glob.as_bytes(), last.as_bytes());
    }
    let glob: Vec<_> = glob.split('/').collect();
    let path: Vec<_> = path.split('/').collect();
    parts_match(&glob, &path)
}

fn parts_match(glob: &[&str], path: &[&str]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skipped| parts_match(rest, &path[skipped..])),
        Some((part, rest)) => path
            .split_first()
            .is_some_and(|(first, others)| wildcard(part.as_bytes(), first.as_bytes()) && parts_match(rest, others)),
    }
}

/// The path relative to the working directory where it is inside, absolute where it is not.
fn plain_path(path: &str, working_directory: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{working_directory}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let absolute = format!("/{}", parts.join("/"));
    let inside = absolute.strip_prefix(working_directory.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    inside.map_or(absolute.clone(), ToOwned::to_owned)
}

/// The texts that a pattern over an argument is compared with: of a text, itself; of a list, each text in it and all
/// joined by spaces (a command given as a list); of anything else, what is in it.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            let mut all: Vec<_> = items.iter().flat_map(texts).collect();
            all.push(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
            all
        }
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
    }
}

/// A command on one line with single spaces: continued lines joined, runs of spaces and tabs collapsed. A pattern is
/// compared with the text as it is and with this one, so that spacing alone does not get around it.
pub(crate) fn one_line(command: &str) -> String {
    let joined = command.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut line = String::with_capacity(joined.len());
    for c in joined.chars() {
        let c = if c == '\t' { ' ' } else { c };
        if c != ' ' || !line.ends_with(' ') {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_with_stars() {
        for (pattern, name, expected) in [
            ("*", "shell", true),
            ("shell", "shell", true),
            ("shell", "shells", false),
            ("*_file", "write_file", true),
            ("mcp*__*", "mcp_git__push", true),
            ("*a*b", "xaab", true),
            ("", "x", false),
        ] {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn paths_are_made_plain_before_they_are_compared() {
        for (glob, path, expected) in [
            (".env", ".env", true),
            (".env", "deep/down/.env", true),
            (".env", "/workspace/./x/../.env", true),
            (".env", ".environment", false),
            ("*.pem", "keys/server.pem", true),
            (".git/**", ".git/config", true),
            (".git/**", "src/../.git/hooks/pre-push", true),
            (".git/**", "/workspace/.git/config", true),
            (".git/**", "sub/.git/config", false),
            ("**/.git/**", "sub/.git/config", true),
            ("src/*.rs", "src/deep/a.rs", false),
            ("/etc/**", "../etc/passwd", true),
            ("/etc/**", "../../../../etc/passwd", true),
            ("/etc/**", "etc/passwd", false),
        ] {
            assert_eq!(path_matches(glob, path, "/workspace"), expected, "{glob} on {path}");
        }
    }

    #[test]
    fn every_text_in_an_argument_is_compared() {
        assert_eq!(texts(&json!("a")), ["a"]);
        assert_eq!(texts(&json!(["git", "push"])), ["git", "push", "git push"]);
        assert_eq!(texts(&json!({ "a": { "b": 7 }, "c": null })), ["7"]);
    }

    #[test]
    fn a_command_on_one_line_has_single_spaces() {
        assert_eq!(one_line("git \t push\\\n  --force\necho"), "git push --force\necho");
    }
}
