//! What a plugin for Ostler is written with.
//!
//! A plugin is a type that implements the trait of each hook that it handles, and one line that exports them:
//!
//! ```
//! use ostler_plugin_sdk::tool_execute_before::{Event, Handler, Outcome};
//! use ostler_plugin_sdk::{HookError, plugin};
//!
//! struct NoSudo;
//!
//! impl Handler for NoSudo {
//!     fn handle(event: Event) -> Result<Outcome, HookError> {
//!         if event.tool == "shell" && event.arguments.contains("sudo") {
//!             return Ok(Outcome::deny("no-sudo", "There is no sudo here; you are root in the sandbox."));
//!         }
//!         Ok(Outcome::pass())
//!     }
//! }
//!
//! plugin!(NoSudo handles tool_execute_before);
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown`, make the core module a component with
//! `ostler plugins componentize`, and put a `plugin.toml` beside it that gives each hook its phase.
//!
//! Every call gets a fresh instance: nothing that a plugin keeps in memory reaches the next call. [`lifecycle`] is the place
//! to refuse a bad configuration when the plugin is loaded. Outside WebAssembly the imports ([`log`], [`config`]) are not
//! there and calling them panics: keep what decides in functions that get everything as arguments, and test those.

// The generated code names this crate from wherever its macros are used.
extern crate self as ostler_plugin_sdk;

#[doc(hidden)]
pub mod bindings;
mod outcome;

#[doc(hidden)]
pub use wit_bindgen;

pub use bindings::gate::ostler::hooks::log::Level;
pub use bindings::gate::ostler::hooks::types::{
    Denial, Fragment, HookError, Person, Phase, Question, Reason, Scope, Until, Verdict,
};

/// A line in the host's log; see the contract for its limits.
pub fn log(level: Level, message: &str) {
    bindings::gate::ostler::hooks::log::log(level, message);
}

/// The text that the plugin's manifest gave or pointed to; empty where there is none.
#[must_use]
pub fn config() -> String {
    bindings::gate::ostler::hooks::config::get()
}

/// Refusing to work, at load.
pub mod lifecycle {
    pub use crate::bindings::lifecycle::exports::ostler::hooks::lifecycle::Guest as Handler;
}

/// `session.start`: add context, or object.
pub mod session_start {
    pub use crate::bindings::session_start::exports::ostler::hooks::session_start::{
        Event, Guest as Handler, Outcome, Source,
    };
}

/// `tool.execute.before`: object to a tool call, or change its arguments.
pub mod tool_execute_before {
    pub use crate::bindings::tool_execute_before::exports::ostler::hooks::tool_execute_before::{
        Effect, Event, Guest as Handler, Outcome, Patch,
    };
}

/// `tool.execute.after`: change or withhold what the model sees of a tool's output.
pub mod tool_execute_after {
    pub use crate::bindings::tool_execute_after::exports::ostler::hooks::tool_execute_after::{
        Event, Guest as Handler, Outcome, Patch, Status,
    };
}

/// `pr.create`: object to a pull request, or change its title and description.
pub mod pr_create {
    pub use crate::bindings::pr_create::exports::ostler::hooks::pr_create::{
        Changes, Event, Guest as Handler, Outcome, Patch, Size,
    };
}

/// Exports a type as a plugin: `plugin!(Type handles lifecycle, session_start, …)`. The type implements the `Handler` of
/// each module that is named. Once per plugin. Outside WebAssembly, where tests run, it only checks that.
#[macro_export]
macro_rules! plugin {
    ($plugin:ident handles $($hook:ident),+ $(,)?) => {
        $(
            const _: () = {
                const fn handles<T: $crate::$hook::Handler>() {}
                handles::<$plugin>();
            };
            #[cfg(target_family = "wasm")]
            $crate::bindings::$hook::export!($plugin with_types_in $crate::bindings::$hook);
        )+
    };
}
