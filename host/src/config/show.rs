//! What holds, for people and for programs. A key of a provider is shown as where it comes from, never itself.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::Value;
use super::load::Loaded;
use super::settings::{Origin, Setting};

/// Whether each line says where its value was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    /// It does.
    Shown,
    /// It does not.
    Hidden,
}

impl Loaded {
    /// The values as a file that would say the same; what has no value and where keys come from are comments in it.
    #[must_use]
    pub fn show(&self, origins: Origins) -> String {
        let mut text = String::new();
        let mut sections: Vec<String> = Vec::new();
        for setting in self.settings.iter() {
            let section = setting.path.split().0.to_string();
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        for section in sections {
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{gap}[{section}]");
            for setting in self.settings.iter().filter(|setting| setting.path.split().0.to_string() == section) {
                let name = setting.path.split().1;
                let line = match &setting.value {
                    Some(value) => format!("{name} = {}", setting.key.kind.to_toml(value)),
                    None => format!("# {name} is not set"),
                };
                let _ = match origins {
                    // That nobody set it is its origin.
                    Origins::Shown if setting.value.is_none() => writeln!(text, "{line}"),
                    Origins::Shown => writeln!(text, "{line}  # {}", self.origin(setting)),
                    Origins::Hidden => writeln!(text, "{line}"),
                };
            }
            if let Some((_, source)) = self.keys.iter().find(|(name, _)| section == format!("providers.{name}")) {
                let _ = writeln!(text, "# api_key: {source}");
            }
        }
        text
    }

    /// The values as JSON: a list of `{key, value, origin}` in the order of the reference page.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let settings = self.settings.iter().map(|setting| {
            let value = setting.value.as_ref().map(|value| setting.key.kind.to_toml(value));
            json!({ "key": setting.path.to_string(), "value": value, "origin": self.origin_json(setting.origin) })
        });
        let keys = self.keys.iter().map(|(name, source)| {
            let origin = match source {
                super::keys::KeySource::Variable(variable, _) => json!({ "from": "environment", "variable": variable }),
                super::keys::KeySource::File(path) => json!({ "from": "key_file", "file": path }),
                super::keys::KeySource::Nowhere(_) => json!({ "from": "default" }),
            };
            let value = match source {
                super::keys::KeySource::Nowhere(_) => Json::Null,
                _ => Value::from(source).to_toml().as_str().into(),
            };
            json!({ "key": format!("providers.{name}.api_key"), "value": value, "origin": origin })
        });
        json!({ "file": self.file, "settings": settings.chain(keys).collect::<Vec<_>>() })
    }

    fn origin(&self, setting: &Setting) -> String {
        match (setting.origin, &self.file) {
            (Origin::File(position), Some(file)) => format!("{}:{}", file.display(), position.line),
            (origin, _) => origin.to_string(),
        }
    }

    fn origin_json(&self, origin: Origin) -> Json {
        match origin {
            Origin::Default => json!({ "from": "default" }),
            Origin::File(position) => json!({ "from": "file", "file": self.file, "line": position.line }),
            Origin::Variable(variable) => json!({ "from": "environment", "variable": variable }),
            Origin::Flag(flag) => json!({ "from": "flag", "flag": flag }),
        }
    }
}
