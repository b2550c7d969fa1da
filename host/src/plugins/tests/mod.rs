//! The plugin host through its own API, with components written as text (`fixtures`) and with the real policy plugin.

mod deciding;
mod fixtures;
mod loading;
mod policy;
