//! Identifiers: a prefix that says the kind, and a lowercase ULID.
//!
//! The bare part (without the prefix) serves where a name must be short and plain: DNS label, cgroup,
//! branch part.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// A text that is not an identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id, which looks like `{prefix}_01jd3kq4v5w6x7y8z9a0b1c2d3`")]
pub struct IdError {
    /// What was given.
    pub text: String,
    /// The expected kind, such as `session`.
    pub kind: &'static str,
    /// The expected prefix.
    pub prefix: &'static str,
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// The prefix of this kind, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier that sorts after older ones.
            #[must_use]
            pub fn generate() -> Self {
                Self(Ulid::generate())
            }

            /// An identifier from a ULID made elsewhere.
            #[must_use]
            pub const fn from_ulid(ulid: Ulid) -> Self {
                Self(ulid)
            }

            /// The ULID itself.
            #[must_use]
            pub const fn ulid(&self) -> Ulid {
                self.0
            }

            /// The lowercase ULID without the prefix: 26 characters of `[0-9a-z]`.
            #[must_use]
            pub fn bare(&self) -> String {
                self.0.to_string().to_ascii_lowercase()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.bare())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { text: text.to_owned(), kind: $kind, prefix: $prefix };
                let bare = text.strip_prefix(concat!($prefix, "_")).ok_or_else(error)?;
                // 26 digits hold 130 bits: a first one above 7 would lose two and name something else.
                let fits = bare.len() == 26 && matches!(bare.as_bytes().first(), Some(b'0'..=b'7'));
                if !fits || bare.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(error());
                }
                Ulid::from_string(&bare.to_ascii_uppercase()).map(Self).map_err(|_| error())
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::openapi::id($prefix, $kind)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A session.
    SessionId, "ses", "session"
);
id!(
    /// A prompt of a person in a session.
    PromptId, "pro", "prompt"
);
id!(
    /// A turn: the work for one prompt.
    TurnId, "trn", "turn"
);
id!(
    /// A tool call.
    CallId, "call", "tool call"
);
id!(
    /// A decision of the hooks; every effect names one.
    DecisionId, "dec", "decision"
);
id!(
    /// A pull request on the built-in forge.
    PullRequestId, "pr", "pull request"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_json() {
        let id = SessionId::generate();
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), id);
        assert_eq!(id.bare().len(), 26);
    }

    #[test]
    fn foreign_text_is_refused_with_the_expected_shape() {
        for text in [
            "",
            "ses_",
            "pro_01jd3kq4v5w6x7y8z9a0b1c2d3",
            "ses_01JD3KQ4V5W6X7Y8Z9A0B1C2D3",
            "ses_81jd3kq4v5w6x7y8z9a0b1c2d3",
            "ses_../../etc",
        ] {
            let error = text.parse::<SessionId>().unwrap_err();
            assert!(error.to_string().contains("session id"), "{error}");
        }
    }
}
