//! Schemas that a derive cannot know: identifiers, names, the list of error codes.
//!
//! Only there with the feature `openapi`. Everything else of the document is the host's.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::ErrorCode;
use crate::api::MAX_REPOSITORY;

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

/// An identifier: its prefix and a lowercase ULID.
#[must_use]
pub fn id(prefix: &str, kind: &str) -> RefOr<Schema> {
    text()
        .description(Some(format!(
            "Identifier of a {kind}: `{prefix}_` and a lowercase ULID, which begins with its time."
        )))
        .pattern(Some(format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$")))
        .examples([serde_json::json!(format!("{prefix}_01jd3kq4v5w6x7y8z9a0b1c2d3"))])
        .into()
}

/// The name of a repository, as the forge takes it. On the wire it is a text.
#[derive(Clone, Copy, Debug)]
pub struct RepositoryName;

impl PartialSchema for RepositoryName {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some(
                "Name of a repository: characters of `[a-z0-9._-]`, beginning with a letter or digit, without `..` and not \
                 ending with a dot, `.git` or `.lock`.",
            ))
            .min_length(Some(1))
            .max_length(Some(MAX_REPOSITORY))
            .pattern(Some("^[a-z0-9](?:[._-]?[a-z0-9_-])*$"))
            .into()
    }
}

impl ToSchema for RepositoryName {}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("What kind of error this is, for decisions in code. Each has one HTTP status."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

impl ToSchema for ErrorCode {}
