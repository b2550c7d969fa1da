//! What is counted and measured: every instrument, its name and its labels, in one table.
//!
//! Names are OpenTelemetry's where there are any (`http.server.*`, `gen_ai.*`), else `ostler.*`. Prometheus gets the same with
//! underscores and units. Labels have few values: nothing that a model or a client makes up becomes one.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, ObservableCounter, UpDownCounter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, TextEncoder};

use super::TelemetryError;

/// An instrument as the reference lists it.
#[derive(Clone, Copy, Debug)]
pub struct Instrument {
    /// Its name.
    pub name: &'static str,
    /// Its unit, by UCUM; empty for counts.
    pub unit: &'static str,
    /// What it tells.
    pub meaning: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

macro_rules! instruments {
    ($($field:ident: $kind:ident = $name:literal, $unit:literal, $meaning:literal, [$($label:literal),*];)*) => {
        /// Every instrument of the host.
        pub struct Metrics {
            $(#[doc = $meaning] pub $field: instruments!(@type $kind),)*
        }

        /// The table of instruments.
        pub const INSTRUMENTS: &[Instrument] =
            &[$(Instrument { name: $name, unit: $unit, meaning: $meaning, labels: &[$($label),*] },)*];

        impl Metrics {
            fn new(meter: &Meter) -> Self {
                Self { $($field: instruments!(@make meter $kind $name $unit $meaning),)* }
            }
        }
    };
    (@type counter) => { Counter<u64> };
    (@type gauge) => { UpDownCounter<i64> };
    (@type seconds) => { Histogram<f64> };
    (@type tokens) => { Histogram<u64> };
    (@type lost) => { ObservableCounter<u64> };
    (@make $meter:ident counter $name:literal $unit:literal $meaning:literal) => {
        $meter.u64_counter($name).with_unit($unit).with_description($meaning).build()
    };
    (@make $meter:ident gauge $name:literal $unit:literal $meaning:literal) => {
        $meter.i64_up_down_counter($name).with_unit($unit).with_description($meaning).build()
    };
    (@make $meter:ident lost $name:literal $unit:literal $meaning:literal) => {
        $meter
            .u64_observable_counter($name)
            .with_description($meaning)
            .with_callback(|counter| counter.observe(super::lines_lost(), &[]))
            .build()
    };
    (@make $meter:ident seconds $name:literal $unit:literal $meaning:literal) => {
        $meter.f64_histogram($name).with_unit($unit).with_description($meaning).with_boundaries(SECONDS.to_vec()).build()
    };
    (@make $meter:ident tokens $name:literal $unit:literal $meaning:literal) => {
        $meter.u64_histogram($name).with_unit($unit).with_description($meaning).with_boundaries(TOKENS.to_vec()).build()
    };
}

const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];
const TOKENS: [f64; 10] = [16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 131_072.0, 262_144.0, 1_048_576.0];

instruments! {
    http_duration: seconds = "http.server.request.duration", "s", "Time from a request of the API to the beginning of its answer", ["http.request.method", "http.route", "http.response.status_code"];
    event_streams: gauge = "ostler.event_streams", "", "Streams of events that are open", [];
    sessions: counter = "ostler.sessions", "", "Sessions that were made", [];
    prompts: counter = "ostler.prompts", "", "Prompts that were accepted", [];
    turns_active: gauge = "ostler.turns.active", "", "Turns under way", [];
    turns: counter = "ostler.turns", "", "Turns that ended", ["outcome"];
    turn_duration: seconds = "ostler.turn.duration", "s", "Time of a turn from its beginning to its end", ["outcome"];
    model_duration: seconds = "gen_ai.client.operation.duration", "s", "Time of one attempt at an answer of a model", ["gen_ai.provider.name", "gen_ai.request.model", "error.type"];
    model_first_token: seconds = "ostler.model.time_to_first_token", "s", "Time to the first token of an answer", ["gen_ai.provider.name", "gen_ai.request.model"];
    model_tokens: tokens = "gen_ai.client.token.usage", "{token}", "Tokens of one request to a model, as its provider counts them", ["gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"];
    model_retries: counter = "ostler.model.retries", "", "Attempts that failed and were made again", ["gen_ai.provider.name"];
    compactions: counter = "ostler.context.compactions", "", "Conversations whose beginning became a summary", ["by"];
    tools: counter = "ostler.tool.calls", "", "Calls of tools that ended", ["tool", "outcome"];
    tool_duration: seconds = "ostler.tool.duration", "s", "Wall time of a call", ["tool"];
    decisions: counter = "ostler.hook.decisions", "", "Decisions of hooks", ["hook", "verdict"];
    workspaces: counter = "ostler.workspaces", "", "Sandboxes that were made ready, were lost, or were cut off because their guest broke the protocol or did not answer", ["outcome"];
    workspace_duration: seconds = "ostler.workspace.start.duration", "s", "Time from the request for a sandbox to its being ready", [];
    egress: counter = "ostler.egress.decisions", "", "Wishes of sandboxes to reach the outside: connections, requests of plain HTTP, look-ups", ["verdict", "protocol"];
    egress_bytes: counter = "ostler.egress.traffic", "By", "Bytes of connections of sandboxes to the outside that ended", ["direction"];
    pull_requests: counter = "ostler.pull_requests", "", "Pull requests that were opened or updated, and turns that published nothing", ["outcome"];
    log_lines_lost: lost = "ostler.log.lines_lost", "", "Lines of the log that could not be written", [];
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new(&opentelemetry::global::meter("ostler")));
static REGISTRY: OnceLock<prometheus::Registry> = OnceLock::new();

/// The instruments. Before [`super::begin_metrics`] what they are told is lost, for good: begin first.
#[must_use]
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// A label.
#[must_use]
pub fn label(key: &'static str, value: impl Into<opentelemetry::Value>) -> KeyValue {
    KeyValue::new(key, value)
}

/// Seconds of a time span.
#[must_use]
pub fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

/// Begins to count for Prometheus, and for whoever else reads (`builder` may have readers already).
pub(super) fn begin(
    builder: opentelemetry_sdk::metrics::MeterProviderBuilder,
) -> Result<SdkMeterProvider, TelemetryError> {
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(|source| TelemetryError::Metrics(Box::new(source)))?;
    let provider = builder.with_reader(reader).build();
    opentelemetry::global::set_meter_provider(provider.clone());
    let _ = REGISTRY.set(registry);
    Ok(provider)
}

/// Everything that was counted, in Prometheus' text format.
pub fn prometheus_text() -> Result<String, TelemetryError> {
    let failed = |source: prometheus::Error| TelemetryError::Metrics(Box::new(source));
    let mut text = Vec::new();
    if let Some(registry) = REGISTRY.get() {
        TextEncoder::new().encode(&registry.gather(), &mut text).map_err(failed)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference page of what is measured.
    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\nWhat the host counts and measures. `GET /metrics` gives it in Prometheus' text format, with the API token like everything \
             else; with `telemetry.otlp_endpoint` it is also sent by OTLP, together with traces. Names and labels are kept from one version to \
             the next.\n\nIn Prometheus a name has underscores for dots, its unit at its end (`_seconds`, `_total` for counters).\n\n\
             | Name | Unit | Labels | Tells |\n|---|---|---|---|\n",
        );
        for instrument in INSTRUMENTS {
            let labels: Vec<String> = instrument.labels.iter().map(|label| format!("`{label}`")).collect();
            let unit = if instrument.unit.is_empty() { "" } else { instrument.unit };
            page.push_str(&format!(
                "| `{}` | {unit} | {} | {} |\n",
                instrument.name,
                labels.join(", "),
                instrument.meaning
            ));
        }
        page
    }

    #[test]
    fn the_generated_page_of_metrics_is_current() {
        crate::pages::assert_current("reference/metrics.md", &page());
    }

    #[test]
    fn what_is_counted_is_what_prometheus_reads() {
        let provider = begin(SdkMeterProvider::builder()).unwrap();
        metrics().turns.add(2, &[label("outcome", "done")]);
        metrics().turn_duration.record(0.3, &[label("outcome", "done")]);
        metrics().turns_active.add(1, &[]);
        let text = prometheus_text().unwrap();
        for line in [
            "ostler_turns_total{outcome=\"done\"} 2",
            "ostler_turn_duration_seconds_bucket{outcome=\"done\",le=\"0.5\"} 1",
            "ostler_turns_active 1",
            "ostler_log_lines_lost_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        drop(provider);
    }
}
