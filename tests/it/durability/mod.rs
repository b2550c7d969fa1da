//! Crashes, restarts and what they leave.

mod clean_up;
mod git;
mod import;
mod kill;
mod publishing;
mod repeating;
mod services;
mod torture;
