//! One table of errors: code, HTTP status, exit code of the command line.

use serde::{Deserialize, Serialize};

/// An error as the API sends it: `{"status":404,"code":"not_found","message":"…","hint":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status, always that of `code`.
    pub status: u16,
    /// What kind of error this is, for decisions in code.
    pub code: ErrorCode,
    /// What failed and why: a lowercase fragment without a final period.
    pub message: String,
    /// What to do about it, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Number of the request, to be found in the log of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status: code.status(), code, message: message.into(), hint: None, request_id: None }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

macro_rules! codes {
    ($($(#[doc = $meaning:literal])* $name:ident = ($text:literal, $status:literal, $exit:literal),)*) => {
        /// Kinds of errors. The number behind each is its HTTP status, then its exit code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[doc = $meaning])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as text, as in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, as a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),*).trim(),)* }
            }

            /// HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Exit code of the command line.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$name => $exit,)* }
            }
        }
    };
}

// Exit codes: 0 success, 1 internal, 2 usage (clap), 3 the request is wrong, 4 not found, 5 refused,
// 6 the host cannot do it now, 7 the agent's run failed, 8 the environment lacks something, 130 interrupted.
codes! {
    /// Malformed or out of range.
    BadRequest = ("bad_request", 400, 3),
    /// A body or field over its limit.
    TooLarge = ("too_large", 413, 3),
    /// No token or a wrong one.
    Unauthenticated = ("unauthenticated", 401, 5),
    /// The Host or Origin header is not one this host answers to.
    ForbiddenOrigin = ("forbidden_origin", 403, 5),
    /// A policy denied it.
    Denied = ("denied", 403, 5),
    /// Unknown session, repository, branch, pull request or path.
    NotFound = ("not_found", 404, 4),
    /// The method does not exist on this path.
    MethodNotAllowed = ("method_not_allowed", 405, 3),
    /// It exists already, or contradicts what is there.
    Conflict = ("conflict", 409, 3),
    /// A queue is full.
    Overloaded = ("overloaded", 429, 6),
    /// The sandbox runtime failed.
    SandboxFailed = ("sandbox_failed", 503, 6),
    /// No room on the disk.
    NoSpace = ("no_space", 507, 6),
    /// The model failed or its script does not fit.
    ModelFailed = ("model_failed", 502, 7),
    /// A plugin could not be loaded.
    PluginFailed = ("plugin_failed", 500, 8),
    /// The machine lacks something that is needed.
    Environment = ("environment", 500, 8),
    /// The host is stopping.
    Unavailable = ("unavailable", 503, 6),
    /// A defect of ours.
    Internal = ("internal", 500, 1),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_the_table() {
        let page = include_str!("../../../docs/src/errors.md");
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | {} | {} |", code.as_str(), code.status(), code.exit_code());
            assert!(page.contains(&row), "docs/src/errors.md lacks `{row}`");
        }
    }

    #[test]
    fn a_code_is_the_same_text_in_json() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
