//! What the product does.

mod attach;
mod bad_input;
mod command_line;
mod configuration;
mod doctor;
mod identity;
mod models;
mod ordinary_user;
mod processes;
mod programs;
mod pull_request;
pub mod services;
mod stop;
mod stream;
mod telemetry;
mod tools;
