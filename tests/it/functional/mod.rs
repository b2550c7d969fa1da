//! What the product does.

mod bad_input;
mod command_line;
mod identity;
mod pull_request;
mod stop;
mod stream;
mod tools;
