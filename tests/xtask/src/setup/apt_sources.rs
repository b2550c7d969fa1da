//! The machine's own package sources, reduced to those of the running Debian release.
//!
//! The base image is made from the same mirrors, with the same trust, as the machine's own packages, so that it also
//! works behind a private mirror. Sources of other vendors stay out of the image. Both formats of apt are read
//! (`sources.list(5)`); what comes out is deb822.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// One deb822 stanza: fields in order.
type Stanza = Vec<(String, String)>;

/// Sources for `codename` (such as `bookworm`) from an apt configuration directory, as deb822 text.
///
/// # Errors
/// [`Error::File`] when something cannot be read; [`Error::Missing`] when no source is for this release.
pub fn for_release(directory: &Path, codename: &str) -> Result<String> {
    let mut stanzas = Vec::new();
    for path in files(directory)? {
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let deb822 = path.extension().is_some_and(|extension| extension == "sources");
        stanzas.extend(if deb822 { read_deb822(&text) } else { read_lines(&text) });
    }
    let kept: Vec<String> = stanzas.into_iter().filter_map(|stanza| reduce(stanza, codename)).collect();
    if kept.is_empty() {
        return Err(Error::Missing {
            what: format!("no package source in {} is for Debian {codename}", directory.display()),
            hint: "add the mirror that this machine's packages come from to /etc/apt/sources.list".to_owned(),
        });
    }
    Ok(kept.join("\n"))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let single = directory.join("sources.list");
    if single.is_file() {
        found.push(single);
    }
    let parts = directory.join("sources.list.d");
    if parts.is_dir() {
        let entries = fs::read_dir(&parts).map_err(Error::file("list", &parts))?;
        let is_source = |path: &PathBuf| path.extension().is_some_and(|e| e == "list" || e == "sources");
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_source).collect();
        paths.sort();
        found.extend(paths);
    }
    Ok(found)
}

fn read_deb822(text: &str) -> Vec<Stanza> {
    let mut stanzas = vec![Stanza::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else { break };
        if line.trim().is_empty() {
            if !stanza.is_empty() {
                stanzas.push(Stanza::new());
            }
        } else if line.starts_with([' ', '\t']) {
            // A continuation, such as a key written into the field itself.
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas.retain(|stanza| !stanza.is_empty());
    stanzas
}

fn read_lines(text: &str) -> Vec<Stanza> {
    let uncommented = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    uncommented.filter_map(read_line).collect()
}

/// Reads `deb [option=value …] address suite component …`.
fn read_line(line: &str) -> Option<Stanza> {
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut stanza = vec![("Types".to_owned(), "deb".to_owned())];
    let rest = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (options, rest) = bracketed.split_once(']')?;
            for (name, value) in options.split_whitespace().filter_map(|option| option.split_once('=')) {
                stanza.push((field_of(name), value.replace(',', " ")));
            }
            rest
        }
        None => rest,
    };
    let mut words = rest.split_whitespace();
    stanza.push(("URIs".to_owned(), words.next()?.to_owned()));
    stanza.push(("Suites".to_owned(), words.next()?.to_owned()));
    stanza.push(("Components".to_owned(), words.collect::<Vec<_>>().join(" ")));
    Some(stanza)
}

/// The deb822 field of an option of the one-line format.
fn field_of(option: &str) -> String {
    match option {
        "arch" => "Architectures".to_owned(),
        "lang" => "Languages".to_owned(),
        "target" => "Targets".to_owned(),
        // The others have the same name; field names are not case-sensitive.
        other => other.to_owned(),
    }
}

/// The stanza with only the suites of the release and only the component `main`; nothing when none is left.
fn reduce(stanza: Stanza, codename: &str) -> Option<String> {
    let of_release = |suite: &&str| {
        let rest = suite.strip_prefix(codename);
        rest.is_some_and(|rest| ["", "-updates", "-security", "/updates"].contains(&rest.trim_end_matches('/')))
    };
    let mut text = String::new();
    for (name, value) in stanza {
        let value = match name.to_ascii_lowercase().as_str() {
            "enabled" if value.eq_ignore_ascii_case("no") => return None,
            "types" if !value.split_whitespace().any(|kind| kind == "deb") => return None,
            "types" => "deb".to_owned(),
            "suites" => value.split_whitespace().filter(of_release).collect::<Vec<_>>().join(" "),
            "components" if value.split_whitespace().any(|component| component == "main") => "main".to_owned(),
            "components" => return None,
            _ => value,
        };
        if value.is_empty() {
            return None;
        }
        text.push_str(&format!("{name}: {value}\n"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(stanzas: Vec<Stanza>) -> Vec<String> {
        stanzas.into_iter().filter_map(|stanza| reduce(stanza, "bookworm")).collect()
    }

    #[test]
    fn both_formats_give_the_same_sources() {
        let lines = "# a comment\ndeb [arch=amd64,arm64 signed-by=/k.gpg] http://mirror/debian bookworm main contrib\n\
                     deb-src http://mirror/debian bookworm main\n";
        let deb822 = "# a comment\nTypes: deb deb-src\narchitectures: x\nURIs: http://mirror/debian\n\
                      Suites: bookworm\nComponents: main contrib\n";
        assert_eq!(
            reduced(read_lines(lines)),
            ["Types: deb\nArchitectures: amd64 arm64\nsigned-by: /k.gpg\nURIs: http://mirror/debian\n\
              Suites: bookworm\nComponents: main\n"]
        );
        assert_eq!(
            reduced(read_deb822(deb822)),
            ["Types: deb\narchitectures: x\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: main\n"]
        );
    }

    #[test]
    fn only_the_suites_of_this_release_stay() {
        let text = "Types: deb\nURIs: http://a\nSuites: bookworm bookworm-updates bookworm-backports trixie\n\
                    Components: main\n\nTypes: deb\nURIs: http://vendor\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://b\nSuites: bookworm\nComponents: main\n";
        let kept = reduced(read_deb822(text));
        assert_eq!(kept, ["Types: deb\nURIs: http://a\nSuites: bookworm bookworm-updates\nComponents: main\n"]);
    }

    #[test]
    fn a_key_inside_the_field_survives() {
        let text =
            "Types: deb\nURIs: http://a\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n AAAA\n";
        let kept = reduced(read_deb822(text));
        assert!(kept[0].ends_with("Signed-By: \n -----BEGIN\n .\n AAAA\n"), "{kept:?}");
    }
}
