//! The path of a value, with names in the place of `*`: `providers.openai.models."gpt-5.1".context_tokens`.

use std::fmt;

/// A path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The path with one more part.
    #[must_use]
    pub fn join(&self, part: &str) -> Self {
        Self(self.0.iter().cloned().chain([part.to_owned()]).collect())
    }

    /// Path of the section, and the key's own name in it.
    #[must_use]
    pub fn split(&self) -> (Self, &str) {
        match self.0.split_last() {
            Some((last, section)) => (Self(section.to_vec()), last),
            None => (Self::default(), ""),
        }
    }

    /// Fills the `*` of a pattern with names, in order. The rest stays as it is.
    #[must_use]
    pub fn fill(pattern: &str, names: &[&str]) -> Self {
        let mut names = names.iter();
        let fill = |part| if part == "*" { names.next().copied().unwrap_or(part) } else { part };
        Self(pattern.split('.').map(fill).map(str::to_owned).collect())
    }

    /// The name of the provider that it is about.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        match self.0.as_slice() {
            [first, name, ..] if first == "providers" => Some(name),
            _ => None,
        }
    }

    /// The host of egress that it is about.
    #[must_use]
    pub fn egress_host(&self) -> Option<&str> {
        match self.0.as_slice() {
            [first, second, name, ..] if first == "egress" && second == "hosts" => Some(name),
            _ => None,
        }
    }

    /// The name of the model that it is about.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        match self.0.as_slice() {
            [_, _, models, name, ..] if models == "models" => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.0.iter().enumerate() {
            let dot = if position == 0 { "" } else { "." };
            let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            match !part.is_empty() && part.bytes().all(bare) {
                true => write!(f, "{dot}{part}")?,
                false => write!(f, "{dot}{}", toml::Value::String(part.clone()))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_bare_keys_are_quoted() {
        let path = KeyPath::fill("providers.*.models.*.context_tokens", &["openai", "org/gpt-5.1"]);
        assert_eq!(path.to_string(), "providers.openai.models.\"org/gpt-5.1\".context_tokens");
        assert_eq!(path.provider(), Some("openai"));
        assert_eq!(path.split().1, "context_tokens");
    }
}
