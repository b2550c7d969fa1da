//! What must not be possible.

mod api;
mod limits;
mod sandbox;
