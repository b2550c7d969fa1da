//! What must not be possible.

mod api;
mod egress;
mod hostile;
mod limits;
mod repository;
mod sandbox;
