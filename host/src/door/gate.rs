//! The gate that every wish passes after the policy and before anything is dialled.
//!
//! What stands here may only refuse: it never sees what the policy refused. Plugins get their place here.

use async_trait::async_trait;
use ostler_protocol::SessionId;
pub use ostler_protocol::event::EgressProtocol as Protocol;

/// What a sandbox wants and the policy would allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRequest {
    /// Whose sandbox.
    pub session: SessionId,
    /// The host, a name or an address, in its canonical form.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// The method, for plain HTTP.
    pub method: Option<String>,
    /// The path without the query, for plain HTTP.
    pub path: Option<String>,
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// It may.
    Pass,
    /// It may not.
    Deny {
        /// Why, in the gate's words.
        reason: String,
    },
}

/// Decides about what the policy allows.
#[async_trait]
pub trait EgressGate: Send + Sync {
    /// Decides. Whoever asks waits a limited time; no answer within it is a refusal.
    async fn ask(&self, request: &EgressRequest) -> GateVerdict;
}

/// A gate that lets everything pass.
#[derive(Clone, Copy, Debug)]
pub struct OpenGate;

#[async_trait]
impl EgressGate for OpenGate {
    async fn ask(&self, _: &EgressRequest) -> GateVerdict {
        GateVerdict::Pass
    }
}
