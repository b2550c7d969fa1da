//! The code that wit-bindgen makes from the contract in `wit/`, and nothing else.
//!
//! One world per hook, so that a plugin exports only what it handles; all of them share the types of `gate`.

pub mod gate {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "gate",
        generate_unused_types: true,
        additional_derives: [PartialEq],
        runtime_path: "::ostler_plugin_sdk::wit_bindgen::rt",
    });
}

macro_rules! hook {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                with: {
                    "ostler:hooks/types@0.1.0": ::ostler_plugin_sdk::bindings::gate::ostler::hooks::types,
                    "ostler:hooks/log@0.1.0": ::ostler_plugin_sdk::bindings::gate::ostler::hooks::log,
                    "ostler:hooks/config@0.1.0": ::ostler_plugin_sdk::bindings::gate::ostler::hooks::config,
                },
                additional_derives: [PartialEq],
                pub_export_macro: true,
                runtime_path: "::ostler_plugin_sdk::wit_bindgen::rt",
            });
        }
    };
}

hook!(lifecycle, "handles-lifecycle");
hook!(session_start, "handles-session-start");
hook!(tool_execute_before, "handles-tool-execute-before");
hook!(tool_execute_after, "handles-tool-execute-after");
hook!(pr_create, "handles-pr-create");
