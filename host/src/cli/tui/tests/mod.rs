//! Tests of the screen: what becomes of a key or an event, and how it looks.

mod bench;
mod looks;
mod updates;
