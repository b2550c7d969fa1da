//! The screen of `ostler attach`: a transcript that can be scrolled and opened, and a line for the next prompt.
//!
//! ```text
//!   keys, paste, size ─┐                        ┌─► view ─► screen
//!   feed ──────────────┼─► update(state, input) ┤
//!   answers, clock ────┘                        └─► effects ─► run: send, stop, try again, leave
//! ```
//!
//! `update` is pure: no clock, no terminal, no host; `run` performs what it asks for. The words are those of
//! [`super::words`], the events those of [`super::feed`]. Owns the screen while it is up. Has no logic of its own about
//! sessions: what a key asks for is a question to the host, and what it did comes back as an event.

mod run;
mod update;

mod document;
mod editor;
mod entry;
mod keys;
mod state;

mod screen;
mod view;
mod wrap;

#[cfg(test)]
mod tests;

pub use keys::sheet;
pub use run::{attach, explained};
