//! The pages of the book about configuration, made of the tables of keys and of variables.

use super::env::{self, Reader};
use super::kind::Kind;
use super::table::{Fallback, KEYS, Key, SECTIONS};

const CONFIGURATION: &str = "\
# Configuration

<!-- Made of `host/src/config/table.rs`; a test tells how to write it again. -->

The host reads one TOML file: the one given with `--config`, else the one that `OSTLER_CONFIG` names, else
`/etc/ostler/config.toml` if it is there. A file that was named must be there. Without any file the defaults hold.

- A value is taken from the default, the file, the environment or a flag; **the later counts**. An empty variable counts
  as one that is not set. A list is replaced as a whole: `--plugin` given once replaces every plugin of the file.
- A relative path in the file counts from the file's folder, one in a variable or a flag from the current folder.
- An unknown key is an error. All problems of a file are told at once, with line and column.
- Sizes are powers of 1,024: `512M`, `2G`. Times have a unit: `500ms`, `90s`, `15m`, `2h`.

```sh
ostler config show --origin     # what holds, and where each value was said
ostler config validate FILE     # every problem of a file; exit code 3 if there is one
ostler config schema            # JSON Schema, for editors
```

`config show` takes the flags of `ostler up`, and says what would hold with them. Keys of providers are never shown, only where
they come from. A complete example:

```toml
{{#include ../../../examples/config.toml}}
```
";

const ENVIRONMENT: &str = "\
# Environment variables

<!-- Made of `host/src/config/env.rs`; a test tells how to write it again. -->

Every variable that Ostler reads of its own accord. An empty variable counts as one that is not set. The configuration can
name further variables that hold keys of providers (`api_key_env`).

| Variable | Read by | Means | Sets |
|---|---|---|---|
";

/// The page of the keys.
pub(super) fn configuration() -> String {
    let mut page = CONFIGURATION.to_owned();
    for section in SECTIONS {
        page.push_str(&format!("\n## `[{}]`\n\n{}\n", named(section.path), section.meaning));
        for key in KEYS.iter().filter(|key| key.split().0 == section.path) {
            page.push_str(&describe(key));
        }
    }
    page
}

/// The page of the variables.
pub(super) fn environment() -> String {
    let mut page = ENVIRONMENT.to_owned();
    for variable in env::ALL {
        let reader = match variable.reader {
            Reader::Configuration => "the host, `ostler config`, `ostler doctor`, `ostler images`, `ostler logs`",
            Reader::Client => "commands that ask a host",
            Reader::Everything => "every command",
            Reader::Tests => continue,
        };
        let sets = KEYS.iter().flat_map(|key| key.variables).filter(|(_, name)| *name == variable.name);
        let sets: Vec<String> = sets.map(|(path, _)| format!("`{path}`")).collect();
        page.push_str(&format!(
            "| `{}` | {reader} | {} | {} |\n",
            variable.name,
            variable.meaning.trim(),
            sets.join(", ")
        ));
    }
    page
}

fn describe(key: &Key) -> String {
    let mut lines = vec![format!("- Value: {}", key.kind.whole())];
    lines.push(format!("- Default: {}", default(key)));
    if !key.variables.is_empty() {
        let variables: Vec<String> = key.variables.iter().map(|(_, name)| format!("`{name}`")).collect();
        lines.push(format!("- Environment: {}", variables.join(", ")));
    }
    if let Some(flag) = key.flag {
        let more = if key.kind.is_list() { ", once for each member" } else { "" };
        lines.push(format!("- Flag: `{flag}`{more}"));
    }
    lines.push(format!("- Example: `{} = {}`", key.split().1, key.example));
    format!("\n### `{}`\n\n{}.\n\n{}\n", named(key.path), key.meaning, lines.join("\n"))
}

fn default(key: &Key) -> String {
    let value = |text: &str| match key.kind {
        Kind::Number { .. } | Kind::Cores => format!("`{text}`"),
        _ => format!("`\"{text}\"`"),
    };
    match key.default {
        Fallback::Value(text) => value(text),
        Fallback::EmptyList => "`[]`".to_owned(),
        Fallback::Nothing(words) => words.to_owned(),
        Fallback::For(some) => {
            let each = some.iter().map(|(path, text)| {
                let provider = path.split('.').nth(1).unwrap_or(path);
                format!("{} for `{provider}`", value(text))
            });
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// `NAME` and `MODEL` in the place of `*`.
fn named(path: &str) -> String {
    path.replacen('*', "NAME", 1).replacen('*', "\"MODEL\"", 1)
}
