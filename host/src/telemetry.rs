//! Logs: where they go, what is let through, how an error's causes are written.
//!
//! Owns the process-wide subscriber. Log lines go to stderr, so that stdout stays for data.

use std::error::Error;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// What can go wrong when logging begins.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter `{filter}` is not one")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody set a subscriber before.
    #[error("logging was begun twice")]
    Twice(#[source] Box<dyn Error + Send + Sync>),
}

/// Begins logging to stderr. `filter` is in the words of `tracing_subscriber`, such as `info,ostler::api=debug`.
pub fn init(filter: &str) -> Result<(), TelemetryError> {
    let parsed =
        EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init()
        .map_err(TelemetryError::Twice)
}

/// An error and its causes in one line: `could not …: permission denied`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a `String` cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = TelemetryError::Twice(Box::new(io::Error::other("busy")));
        assert_eq!(chain(&error), "logging was begun twice: busy");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = init("ostler=loud").unwrap_err();
        assert_eq!(error.to_string(), "the log filter `ostler=loud` is not one");
    }
}
