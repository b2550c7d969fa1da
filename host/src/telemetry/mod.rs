//! What the host tells about itself: log, metrics, traces.
//!
//! ```text
//!  tracing ─┬─► stderr (text or JSON lines)
//!           ├─► files in the data folder (JSON lines; `ostler logs` reads them)
//!           └─► OTLP, where a collector is named ──┐
//!  metrics ─┬─► GET /metrics                       ├─► collector
//!           └─► OTLP ──────────────────────────────┘
//! ```
//!
//! Owns the process-wide subscriber and the instruments. Nothing here may fail what it tells about: a full disk costs
//! lines, which are counted, a collector that is gone costs what was to be sent.

mod file;
mod metrics;
mod otlp;

use std::error::Error;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use self::file::Lines;
use crate::config::{LogFormat, LogSettings};

pub use file::{FILES, path as log_file};
pub use metrics::{INSTRUMENTS, Instrument, Metrics, label, metrics, prometheus_text, seconds};

/// Time to send what is left at the end.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// What can go wrong when telemetry begins.
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
    /// The log file cannot be written.
    #[error("could not open the log file in {folder}", folder = folder.display())]
    File {
        /// Which folder.
        folder: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be sent to the collector.
    #[error("could not prepare to send to the collector at {endpoint}")]
    Otlp {
        /// Its address.
        endpoint: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Metrics cannot be collected.
    #[error("could not collect metrics")]
    Metrics(#[source] Box<dyn Error + Send + Sync>),
}

static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

type Tracing = Option<OpenTelemetryLayer<Registry, SdkTracer>>;

/// Where the layer that sends traces is put once there is a runtime.
static TRACES: OnceLock<reload::Handle<Tracing, Registry>> = OnceLock::new();

/// Begins logging to stderr, and keeps the first lines for the file. Starts no thread. A line of JSON has the fields of the
/// event beside `timestamp`, `level` and `target`, and the spans that it happened in under `spans`.
pub fn init(log: &LogSettings) -> Result<(), TelemetryError> {
    let filter = || {
        EnvFilter::try_new(&log.filter).map_err(|source| TelemetryError::Filter { filter: log.filter.clone(), source })
    };
    let (traces, handle) = reload::Layer::new(None);
    // What happens in the host; not every packet of the libraries below it.
    let ours = Targets::new().with_target("ostler", tracing::Level::INFO);
    let stderr = fmt::layer().with_writer(|| file::Stderr);
    let stderr = match log.format {
        LogFormat::Text => stderr.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => stderr.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let lines = fmt::layer().with_writer(&*LINES).json().flatten_event(true).with_current_span(false);
    let begun = Registry::default()
        .with(traces.with_filter(ours))
        .with(stderr.with_filter(filter()?))
        .with(lines.with_filter(filter()?))
        .try_init();
    begun.map_err(|error| TelemetryError::Twice(Box::new(error)))?;
    let _ = TRACES.set(handle);
    Ok(())
}

/// What sends and counts; at its end what is left is sent.
pub struct Running {
    metrics: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
}

/// Begins the log file in `folder`, the metrics, and what is sent to the collector at `otlp`. Must be called once, within
/// the runtime, before anything is counted.
pub fn begin(folder: &Path, otlp: Option<&str>) -> Result<Running, TelemetryError> {
    LINES.open(folder).map_err(|source| TelemetryError::File { folder: folder.to_owned(), source })?;
    let mut builder = SdkMeterProvider::builder().with_resource(otlp::resource());
    let mut traces = None;
    if let Some(endpoint) = otlp {
        builder = builder.with_reader(otlp::metrics(endpoint)?);
        let provider = otlp::tracers(endpoint)?;
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("ostler"));
        if let Some(handle) = TRACES.get() {
            let failed = |error| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source: Box::new(error) };
            handle.reload(Some(layer)).map_err(failed)?;
        }
        traces = Some(provider);
    }
    Ok(Running { metrics: metrics::begin(builder)?, traces })
}

impl Running {
    /// Sends what is left. Blocks for a few seconds at most.
    pub fn end(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown_with_timeout(LAST_EXPORT)
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
        if let Err(error) = self.metrics.shutdown_with_timeout(LAST_EXPORT) {
            tracing::debug!(%error, "the last metrics could not be sent");
        }
    }
}

/// Lines of the log that were lost so far.
fn lines_lost() -> u64 {
    LINES.lost()
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
