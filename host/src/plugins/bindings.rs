//! The code that `bindgen!` makes from the contract in `wit/`, and nothing else.
//!
//! One world per hook, so that the host can probe each of them in a component by its `…Indices`; all of them share the
//! types of `gate`.

pub mod gate {
    wasmtime::component::bindgen!({ path: "../wit", world: "gate" });
}

macro_rules! hook {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wasmtime::component::bindgen!({
                path: "../wit",
                world: $world,
                exports: { default: async },
                with: { "ostler:hooks": crate::plugins::bindings::gate::ostler::hooks },
            });
        }
    };
}

hook!(lifecycle, "handles-lifecycle");
hook!(session_start, "handles-session-start");
hook!(tool_execute_before, "handles-tool-execute-before");
hook!(tool_execute_after, "handles-tool-execute-after");
hook!(pr_create, "handles-pr-create");

pub use gate::ostler::hooks::{config, log, types};
