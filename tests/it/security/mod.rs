//! What must not be possible.

mod api;
mod repository;
mod sandbox;
