//! Traces and metrics to a collector, by OTLP over HTTP.
//!
//! Owns the way from the exporters' own threads, which know no runtime, to the host's HTTP client. A collector that is not
//! there costs what was to be sent, never a request or a turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;

use super::TelemetryError;

/// Time that one export may take.
const EXPORT_TIME: Duration = Duration::from_secs(10);

/// Largest answer of a collector that is read, in bytes; what it says is of no use.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Who sends.
pub(super) fn resource() -> Resource {
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder().with_service_name("ostler").with_attribute(version).build()
}

/// What sends spans to the collector at `endpoint`, such as `http://127.0.0.1:4318`.
pub(super) fn tracers(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(client(endpoint)?)
        .with_endpoint(address(endpoint, "traces"))
        .with_timeout(EXPORT_TIME)
        .build()
        .map_err(|source| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source: Box::new(source) })?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

/// What sends metrics to the collector, once a minute.
pub(super) fn metrics(endpoint: &str) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_shared_http_client(client(endpoint)?)
        .with_endpoint(address(endpoint, "metrics"))
        .with_timeout(EXPORT_TIME)
        .build()
        .map_err(|source| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source: Box::new(source) })?;
    Ok(PeriodicReader::builder(exporter).build())
}

fn address(endpoint: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", endpoint.trim_end_matches('/'))
}

fn client(endpoint: &str) -> Result<Arc<Client>, TelemetryError> {
    let secure = endpoint.starts_with("https:");
    let builder = if secure { crate::http::trusting() } else { crate::http::plain() };
    let http = builder
        .timeout(EXPORT_TIME)
        .build()
        .map_err(|source| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source: Box::new(source) })?;
    Ok(Arc::new(Client { http, runtime: Handle::current() }))
}

/// The host's HTTP client, for threads that are not the runtime's.
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let response = http.execute(request).await?;
            let (status, length) = (response.status(), response.content_length());
            // The words of a refusal are worth a line in the log, if they are short.
            let body =
                if length.is_some_and(|length| length <= MAX_ANSWER) { response.bytes().await? } else { Bytes::new() };
            Ok::<_, reqwest::Error>((status, body))
        });
        let (status, body) = sent.await??;
        Ok(Response::builder().status(status).body(body)?)
    }
}
