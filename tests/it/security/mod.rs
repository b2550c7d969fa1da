//! What must not be possible.

mod api;
mod egress;
mod limits;
mod repository;
mod sandbox;
