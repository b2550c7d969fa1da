//! Tests of the HTTP edge against a host that is a table in memory.

mod access;
mod document;
mod errors;
pub(crate) mod fake;
mod pages;
mod serving;
mod stream;
