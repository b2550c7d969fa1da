//! The contract of the API: what the document says is what a real host does.

mod examples;
mod schemathesis;
mod stream;
mod typescript;
