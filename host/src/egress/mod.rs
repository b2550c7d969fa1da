//! What may leave a sandbox: the rules, and the decision. Pure: no socket, no clock.
//!
//! ```text
//!  configuration ─► Policy ─┐
//!  host, port, what ────────┴─► allowed (by which rule, into which private ranges)  or  refused (why)
//!  resolved address ──────────► ranges: public, allowed for this host, or refused
//! ```
//!
//! Deny by default: a policy without rules allows nothing. Owns how names, addresses and rules are written and compared, so
//! that they are brought into one form in one place. Who asks, resolves and connects is the door.

mod name;
mod policy;
mod presets;
mod ranges;

pub use name::{Host, HostName, HostPattern, NameError};
pub use policy::{Allowed, Budget, METHODS, Policy, Refusal, Rule, Wanted, is_path_prefix};
pub use presets::{PRESETS, Preset};
pub use ranges::refused_range;
