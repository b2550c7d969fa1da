//! `plugin.toml`: what a plugin is and in which hooks it takes part.
//!
//! ```toml
//! id = "policy"
//! version = "0.1.0"
//! contract = "0.1"
//! module = "policy.wasm"
//! config_file = "rules.toml"
//!
//! [[hooks]]
//! name = "tool.execute.before"
//! phase = "validate"
//! priority = 100
//! ```
//!
//! Unknown keys are errors. A manifest may make a failure stricter than the hook says, never milder.

use serde::Deserialize;

use super::hook::{Failure, Hook, Phase};

/// Version of the contract that this host speaks: `major.minor` of the WIT package.
pub const CONTRACT: &str = "0.1";
/// Most bytes of a manifest.
pub(super) const MAX_MANIFEST: u64 = 64 * 1024;

/// A manifest that says something wrong.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not TOML, a key is unknown, or a value has the wrong type.
    #[error("the manifest cannot be read")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An id becomes part of logs and file names.
    #[error("`id` is `{id}`, and must be 1 to 64 characters of a-z, 0-9 and `-`, beginning with a letter")]
    Id {
        /// What was given.
        id: String,
    },
    /// A version is shown to people.
    #[error("`version` is `{version}`, and must be 1 to 64 characters without spaces")]
    Version {
        /// What was given.
        version: String,
    },
    /// It was written for another contract.
    #[error("`contract` is `{contract}`, and this host speaks {CONTRACT}")]
    Contract {
        /// What was given.
        contract: String,
    },
    /// The module lies beside the manifest.
    #[error("`{key}` is `{name}`, and must be the name of a file beside the manifest")]
    FileName {
        /// Which key.
        key: &'static str,
        /// What was given.
        name: String,
    },
    /// Only one place for the configuration.
    #[error("`config` and `config_file` are both given; keep one")]
    TwoConfigs,
    /// A plugin without hooks is never asked.
    #[error("there is no [[hooks]] table, so the plugin would never be asked")]
    NoHooks,
    /// A hook that does not exist would never fire.
    #[error("the hook `{name}` does not exist; the hooks are {}", hook_names())]
    UnknownHook {
        /// What was given.
        name: String,
    },
    /// Once per phase is enough.
    #[error("the hook `{hook}` is given twice for the phase `{phase}`")]
    HookTwice {
        /// Which hook.
        hook: Hook,
        /// Which phase.
        phase: Phase,
    },
    /// A plugin may not loosen what a hook says about failures.
    #[error("`failure` of the hook `{hook}` is `{asked}`, which is milder than the hook's own `{least}`")]
    MilderFailure {
        /// Which hook.
        hook: Hook,
        /// What was given.
        asked: Failure,
        /// The least that is possible.
        least: Failure,
    },
}

fn hook_names() -> String {
    Hook::ALL.map(|hook| format!("`{hook}`")).join(", ")
}

/// A manifest that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Name of the plugin.
    pub(super) id: String,
    /// Its version.
    pub(super) version: String,
    /// File with the component, beside the manifest.
    pub(super) module: String,
    /// Whether the host refuses to start without it.
    pub(super) required: bool,
    /// Its own configuration.
    pub(super) config: Config,
    /// Where it takes part.
    pub(super) hooks: Vec<Registration>,
}

/// Where the configuration of a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Config {
    /// In the manifest; empty where it gives none.
    Inline(String),
    /// In a file beside the manifest.
    File(String),
}

/// One part that a plugin takes in one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Which hook.
    pub hook: Hook,
    /// In which phase.
    pub phase: Phase,
    /// Higher comes first in the mutate phase; equals go by plugin id.
    pub priority: i32,
    /// What a failure means.
    pub failure: Failure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    id: String,
    version: String,
    contract: String,
    module: Option<String>,
    #[serde(default = "yes")]
    required: bool,
    config: Option<String>,
    config_file: Option<String>,
    #[serde(default)]
    hooks: Vec<RawHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    name: String,
    phase: Phase,
    #[serde(default)]
    priority: i32,
    failure: Option<Failure>,
}

const fn yes() -> bool {
    true
}

impl Manifest {
    /// Reads and checks the text of a `plugin.toml`.
    pub(super) fn parse(text: &str) -> Result<Self, ManifestError> {
        let raw: RawManifest =
            toml::from_str(text).map_err(|source| ManifestError::Syntax { source: Box::new(source) })?;
        check_id(&raw.id)?;
        if raw.version.is_empty() || raw.version.len() > 64 || raw.version.contains(char::is_whitespace) {
            return Err(ManifestError::Version { version: raw.version });
        }
        if raw.contract != CONTRACT {
            return Err(ManifestError::Contract { contract: raw.contract });
        }
        let module = raw.module.unwrap_or_else(|| format!("{}.wasm", raw.id));
        check_file_name("module", &module)?;
        let config = match (raw.config, raw.config_file) {
            (Some(_), Some(_)) => return Err(ManifestError::TwoConfigs),
            (None, Some(name)) => {
                check_file_name("config_file", &name)?;
                Config::File(name)
            }
            (text, None) => Config::Inline(text.unwrap_or_default()),
        };
        let hooks = registrations(raw.hooks)?;
        Ok(Self { id: raw.id, version: raw.version, module, required: raw.required, config, hooks })
    }
}

fn registrations(raw: Vec<RawHook>) -> Result<Vec<Registration>, ManifestError> {
    let mut hooks: Vec<Registration> = Vec::new();
    for RawHook { name, phase, priority, failure } in raw {
        let hook = Hook::named(&name).ok_or(ManifestError::UnknownHook { name })?;
        if hooks.iter().any(|other| other.hook == hook && other.phase == phase) {
            return Err(ManifestError::HookTwice { hook, phase });
        }
        let least = hook.failure();
        let failure = failure.unwrap_or(least);
        if failure < least {
            return Err(ManifestError::MilderFailure { hook, asked: failure, least });
        }
        hooks.push(Registration { hook, phase, priority, failure });
    }
    if hooks.is_empty() { Err(ManifestError::NoHooks) } else { Ok(hooks) }
}

fn check_id(id: &str) -> Result<(), ManifestError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good =
        (1..=64).contains(&id.len()) && id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(plain);
    if good && id != super::merge::HOST { Ok(()) } else { Err(ManifestError::Id { id: id.to_owned() }) }
}

fn check_file_name(key: &'static str, name: &str) -> Result<(), ManifestError> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
    if plain { Ok(()) } else { Err(ManifestError::FileName { key, name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "id = \"a\"\nversion = \"1\"\ncontract = \"0.1\"\n";
    const HOOK: &str = "[[hooks]]\nname = \"tool.execute.before\"\nphase = \"validate\"\n";

    fn error(text: &str) -> String {
        let error = Manifest::parse(text).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}\n{source}")
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(
            Manifest::parse(&format!("{HEAD}{HOOK}")).unwrap(),
            Manifest {
                id: "a".to_owned(),
                version: "1".to_owned(),
                module: "a.wasm".to_owned(),
                required: true,
                config: Config::Inline(String::new()),
                hooks: vec![Registration {
                    hook: Hook::ToolExecuteBefore,
                    phase: Phase::Validate,
                    priority: 0,
                    failure: Failure::Hold,
                }],
            }
        );
    }

    #[test]
    fn a_wrong_manifest_says_what_is_wrong() {
        let cases = [
            (format!("{HEAD}colour = 1\n{HOOK}"), "unknown field `colour`"),
            (format!("{HEAD}{HOOK}prio = 1\n"), "unknown field `prio`"),
            (format!("{HEAD}[[hooks]]\nname = \"pr.create\"\n"), "missing field `phase`"),
            (format!("{HEAD}[[hooks]]\nname = \"tool.before\"\nphase = \"mutate\"\n"), "`tool.before` does not exist"),
            (format!("{HEAD}{HOOK}{HOOK}"), "given twice for the phase `validate`"),
            (format!("{HEAD}{HOOK}failure = \"skip\"\n"), "milder than the hook's own `hold`"),
            (HEAD.to_owned(), "no [[hooks]] table"),
            (format!("{HEAD}module = \"../x.wasm\"\n{HOOK}"), "`module` is `../x.wasm`"),
            (format!("{HEAD}config = \"\"\nconfig_file = \"b\"\n{HOOK}"), "keep one"),
            (format!("{}{HOOK}", HEAD.replace("0.1", "9.0")), "this host speaks 0.1"),
            (format!("{}{HOOK}", HEAD.replace("\"a\"", "\"A b\"")), "`id` is `A b`"),
            (format!("{}{HOOK}", HEAD.replace("\"a\"", "\"ostler\"")), "`id` is `ostler`"),
        ];
        for (text, expected) in cases {
            let error = error(&text);
            assert!(error.contains(expected), "expected `{expected}` in:\n{error}\nfor:\n{text}");
        }
    }

    #[test]
    fn a_manifest_may_ask_for_a_stricter_failure() {
        let manifest = Manifest::parse(&format!("{HEAD}{HOOK}failure = \"closed\"\n")).unwrap();
        assert_eq!(manifest.hooks[0].failure, Failure::Closed);
    }
}
