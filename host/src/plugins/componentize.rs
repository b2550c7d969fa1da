//! Makes a component of a core module that was built with the contract's bindings.
//!
//! A compiler for `wasm32-unknown-unknown` writes core modules; the bindings leave a description of the interfaces in
//! them, and from both `wit-component` makes the component that the host loads.

use wit_component::ComponentEncoder;

/// A core module that does not become a component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentizeError {
    /// It is a component already.
    #[error("this is a component already, nothing needs to be done")]
    AlreadyComponent,
    /// It is not WebAssembly.
    #[error("this is not a WebAssembly module: it does not begin with `\\0asm` and version 1")]
    NotWasm,
    /// It cannot be read.
    #[error("the core module cannot be read")]
    Module {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not fit its description.
    #[error("the core module does not become a component")]
    Encode {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What the first eight bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A core module.
    Core,
    /// A component.
    Component,
    /// Neither.
    Foreign,
}

/// Looks at the first eight bytes.
pub(super) fn kind(bytes: &[u8]) -> Kind {
    match bytes.get(..8) {
        Some(b"\0asm\x01\0\0\0") => Kind::Core,
        Some(b"\0asm\x0d\0\x01\0") => Kind::Component,
        Some(_) | None => Kind::Foreign,
    }
}

/// The component of a core module, valid and ready to be loaded.
///
/// # Errors
/// The bytes are not a core module, or it does not fit the interfaces that its bindings describe.
pub fn componentize(core: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    match kind(core) {
        Kind::Core => {}
        Kind::Component => return Err(ComponentizeError::AlreadyComponent),
        Kind::Foreign => return Err(ComponentizeError::NotWasm),
    }
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .map_err(|source| ComponentizeError::Module { source: source.into() })?;
    encoder.encode().map_err(|source| ComponentizeError::Encode { source: source.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_core_module_is_refused_by_name() {
        assert!(matches!(componentize(b"#!/bin/sh"), Err(ComponentizeError::NotWasm)));
        assert!(matches!(componentize(b"\0asm\x0d\0\x01\0"), Err(ComponentizeError::AlreadyComponent)));
        assert!(matches!(componentize(b"\0asm\x01\0\0\0\xff"), Err(ComponentizeError::Module { .. })));
    }
}
