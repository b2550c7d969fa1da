//! Which errors an operation may answer, as responses of the document. One set for each operation; what every operation
//! may answer is added to all of them.

use std::collections::BTreeMap;

use ostler_protocol::{ApiError, ErrorCode};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

macro_rules! failures {
    ($($(#[$meta:meta])* $name:ident = [$($code:ident),* $(,)?];)*) => {$(
        $(#[$meta])*
        pub(in crate::api) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$(ErrorCode::$code),*])
            }
        }
    )*};
}

failures! {
    /// Of everything that is answered at all.
    Always = [Unauthenticated, ForbiddenOrigin, Internal, Environment];
    /// Of reading a list, and of making what may be there already.
    Listing = [BadRequest, Overloaded, Unavailable, NoSpace];
    /// Of reading or stopping one thing.
    Finding = [BadRequest, NotFound, Overloaded, Unavailable, NoSpace];
    /// Of reading a log from a place in it.
    Following = [BadRequest, NotFound, Conflict, Overloaded, Unavailable, NoSpace];
    /// Of reading a living workspace.
    Comparing = [BadRequest, NotFound, Overloaded, Unavailable, SandboxFailed, NoSpace];
    /// Of looking into a sandbox, or ending something in it.
    Inside = [BadRequest, NotFound, Conflict, Overloaded, Unavailable, SandboxFailed, NoSpace];
    /// Of starting something in a sandbox.
    Acting = [BadRequest, NotFound, Conflict, TooLarge, Overloaded, Unavailable, SandboxFailed, NoSpace];
    /// Of a request with a body, and perhaps a key.
    Taking = [BadRequest, NotFound, Conflict, TooLarge, Overloaded, Unavailable, NoSpace];
}

/// One response for each status, which names its codes.
fn responses(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

fn response(codes: &[ErrorCode]) -> Response {
    let words: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), lower_first(code.meaning()))).collect();
    let examples = codes.iter().map(|code| {
        let mut error = ApiError::new(*code, lower_first(code.meaning().trim_end_matches('.')));
        error.request_id = Some(super::examples::REQUEST_ID.to_owned());
        let value = utoipa::openapi::example::ExampleBuilder::new().value(serde_json::to_value(error).ok()).build();
        (code.as_str().to_owned(), RefOr::T(value))
    });
    let content = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name(ApiError::name()))))
        .examples_from_iter(examples)
        .build();
    ResponseBuilder::new().description(words.join(" ")).content("application/json", content).build()
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}
