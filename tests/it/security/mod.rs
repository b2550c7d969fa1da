//! What must not be possible.

mod api;
mod sandbox;
