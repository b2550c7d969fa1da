//! The words for what a sandbox does on the network.

use serde::{Deserialize, Serialize};

/// What a sandbox spoke, or would have spoken, with the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressProtocol {
    /// TLS: decided for each connection, by the name in its greeting.
    Tls,
    /// Plain HTTP: decided for each request.
    Http,
    /// Anything, with a host and port that the operator opened as such.
    Tcp,
    /// A look-up of a name.
    Dns,
}

impl EgressProtocol {
    /// In a word, as it is serialized.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Dns => "dns",
        }
    }
}

/// What became of a wish to reach the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    /// It was let through.
    Allowed,
    /// It was refused.
    Refused,
    /// It was allowed, and nobody could be reached.
    Failed,
}
