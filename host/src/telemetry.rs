//! Logs: where they go, what is let through, how an error's causes are written.
//!
//! Owns the process-wide subscriber. Log lines go to stderr, so that stdout stays for data.

use std::error::Error;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

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

/// Begins logging to stderr. A line of JSON has the fields of the event beside `timestamp`, `level` and `target`, and the
/// spans that it happened in under `spans`.
pub fn init(log: &LogSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|source| TelemetryError::Filter { filter: log.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let begun = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    begun.map_err(TelemetryError::Twice)
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
        let log = LogSettings { filter: "ostler=loud".into(), format: LogFormat::Text };
        let error = init(&log).unwrap_err();
        assert_eq!(error.to_string(), "the log filter `ostler=loud` is not one");
    }
}
