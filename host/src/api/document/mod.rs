//! The contract of the API as an OpenAPI 3.1 document, made of the handlers' annotations and the wire types' schemas.
//!
//! ```text
//!  handlers ─► router::routes (one list) ─┬─► the routes that are served
//!  wire types ─► schemas ─────────────────┴─► [`finish`] ─► [`text`] ─► GET /v1/openapi.json, docs/src/reference
//! ```
//!
//! Owns what all operations have in common: who may call, the shape of errors, the headers of every answer. A test compares
//! the committed document and says how to make it anew.

pub(super) mod examples;
pub(super) mod failures;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use ostler_protocol::api::{MAX_PROMPT, REMEMBERED_KEYS};
use ostler_protocol::{ApiError, Delta, api};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, Ref, RefOr, Response};
use utoipa::{IntoResponses, OpenApi as _};

use super::events::Format;
use super::serve::MAX_CONNECTIONS;
use super::{ApiLimits, router};
use crate::session::MAX_QUEUE;
use failures::Always;

/// What all operations have in common, in words.
fn description() -> String {
    let limits = ApiLimits::default();
    let (body, body_time, streams) = (limits.body >> 20, limits.body_time.as_secs(), limits.streams);
    format!(
        "\
Everything that the command line and other clients do with a host goes through these operations; there is no other way in.

**Who may call.** Every request carries the host's token as `Authorization: Bearer TOKEN`. The `Host` header must name the \
host, and a request that a web page of another origin makes is refused.

**Errors** have one shape, `ApiError`. Decide by `code`, which stays the same; show `message` and `hint`. A path that does \
not exist is answered with 404, a method that does not exist on a path with 405, in the same shape.

**Request numbers.** Every answer has a header `x-request-id`, and every error repeats it as `request_id`: it finds the line \
in the host's log.

**Pages.** A list answers at most `limit` items and `next_cursor` where there are more: send it as `cursor`. A page begins \
after the last item of the one before, so that what is made or goes meanwhile neither doubles nor hides anything.

**Repeating.** `GET`, `PUT`, `DELETE` and `stop` can be repeated safely. A `POST` that makes a session or gives a prompt takes an \
`Idempotency-Key`: the same key with the same request is done once, also across a crash of the host, and answered as the \
first time; with another request it is a `conflict`. A host remembers the key of every session, and a session those of its \
last {REMEMBERED_KEYS} prompts.

**Limits.** A body has at most {body} MiB and {body_time} seconds to arrive, a prompt at most {MAX_PROMPT} bytes. {MAX_QUEUE} \
prompts wait in a session, {streams} streams of events are open at a time in one host, {MAX_CONNECTIONS} connections. Whoever meets a full queue gets `overloaded` with a \
`Retry-After` header.

**What may grow.** New operations, optional fields of answers, kinds of events and error codes appear without a new \
version: ignore what you do not know."
    )
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Ostler", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    servers((url = "/", description = "The host that serves this document")),
    tags(
        (name = "host", description = "The host itself"),
        (name = "repositories", description = "Repositories of the built-in forge; filled and read by git at their `clone_url`"),
        (name = "sessions", description = "An agent at work on a repository"),
        (name = "processes", description = "What runs in a session's sandbox beside the agent's tools"),
        (name = "pull requests", description = "What came out")
    ),
    components(schemas(ApiError, Delta, Format, api::CaughtUp)),
    security(("token" = []))
)]
struct Frame;

/// The document before the routes are added to it.
pub(super) fn frame() -> OpenApi {
    let mut document = Frame::openapi();
    document.info.description = Some(description());
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The host's token: 64 hexadecimal digits, in the file `token` of its data folder."))
        .build();
    let components = document.components.get_or_insert_with(Default::default);
    components.add_security_scheme("token", SecurityScheme::Http(scheme));
    document
}

/// Adds what all operations have in common.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            common(operation);
            operation.parameters.iter_mut().flatten().for_each(never_null);
            for (status, response) in &mut operation.responses.responses {
                if !status.starts_with('2') {
                    share(response, document.components.get_or_insert_with(Default::default));
                }
            }
        }
    }
    document
}

/// A parameter is there or not; the text `null` is a value like any other.
fn never_null(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
        && let SchemaType::Array(kinds) = &object.schema_type
        && let [kind, Type::Null] = kinds.as_slice()
    {
        object.schema_type = SchemaType::Type(kind.clone());
    }
}

/// Moves an error to the components, under the name of its codes.
fn share(response: &mut RefOr<Response>, components: &mut Components) {
    let RefOr::T(error) = response else { return };
    let contents = error.content.values().filter_map(|content| match content {
        RefOr::T(content) => Some(content),
        RefOr::Ref(_) => None,
    });
    let codes: Vec<&str> = contents.flat_map(|content| content.examples.keys().map(String::as_str)).collect();
    let name = codes.join("_or_");
    components.responses.insert(name.clone(), response.clone());
    *response = RefOr::Ref(Ref::from_response_name(name));
}

fn common(operation: &mut Operation) {
    operation.responses.responses.extend(Always::responses());
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        header_of(response, "x-request-id", Type::String, "Number of the request in the host's log.");
        if status == "401" {
            header_of(response, "www-authenticate", Type::String, "The scheme: `Bearer`.");
        }
        if status == "429" {
            header_of(response, "retry-after", Type::Integer, "Seconds after which it is worth another try.");
        }
    }
}

fn header_of(response: &mut Response, name: &str, kind: Type, words: &str) {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    let header = HeaderBuilder::new().schema(Some(schema)).description(Some(words)).build();
    response.headers.insert(name.to_owned(), RefOr::T(header));
}

/// The document as text: sorted by its keys, so that two versions can be compared.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = router::routes().split_for_parts();
        // A value sorts its keys. The document is plain data, which always becomes one.
        let value = serde_json::to_value(finish(document)).unwrap_or_default();
        format!("{value:#}\n")
    });
    &TEXT
}

#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "getDocument",
    tag = "host",
    summary = "Read the contract of the API",
    description = "This document: OpenAPI 3.1, for the version of the host that answers.",
    responses((status = 200, description = "The document.", body = serde_json::Value))
)]
pub(super) async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text())
}
