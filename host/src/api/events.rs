//! `GET /v1/sessions/{session}/events`: a stream (SSE) or a page (JSON) of a session's log.
//!
//! Frames of the stream:
//!
//! | frame | `event:` | `id:` | `data:` |
//! |---|---|---|---|
//! | a durable event | none | its sequence number | the event |
//! | a volatile piece of text | `delta` | none | the delta |
//! | replay is done | `caught_up` | none | `{"seq":N}` |
//! | sign of life | comment | | |
//!
//! A client resumes with `Last-Event-ID` (or `?after=`); of two, the header counts, because a browser's reconnect
//! repeats the first address.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use ostler_protocol::api::{CaughtUp, EventPage, MAX_EVENTS};
use ostler_protocol::{ErrorCode, SessionId};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::document::{examples, failures};
use super::extract::{PathText, QueryOf, parse};
use super::feed::{Feed, Frame};
use super::{ApiFailure, ApiState};
use crate::telemetry::metrics;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Query of the route.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reading {
    /// Only events after this sequence number.
    after: Option<u64>,
    /// At most so many events, in a page.
    limit: Option<usize>,
    /// A page or a stream, whatever `Accept` says.
    format: Option<Format>,
}

/// How events are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[schema(as = EventFormat)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// A page.
    Json,
    /// A stream.
    Sse,
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/events",
    operation_id = "readEvents",
    tag = "sessions",
    summary = "Read or follow a session's events",
    description = "The log of a session as a page of JSON, or as a stream of server-sent events that goes on until the \
                   client leaves or the host stops. A client that asks for `application/json` and not for \
                   `text/event-stream` gets a page; `format` decides whatever `Accept` says.\n\n\
                   The stream sends every event after the place it begins at, in order, each with its sequence number as \
                   `id:` and an `Event` as `data:`. When everything that was durable is sent, one frame named `caught_up` \
                   says so (`CaughtUp`); then come new events as they happen, and between them frames named `delta` \
                   (`Delta`): pieces of text on their way, without an id, that may be lost and that the next event replaces. \
                   A comment `: alive` every 15 seconds shows that the connection lives. A client that reconnects sends the \
                   last `id:` that it saw as `Last-Event-ID` and misses nothing. One host serves only so many streams at a time; \
                   further ones are answered `overloaded`.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("after" = Option<u64>, Query, description = "Only events after this sequence number; 0 where it is absent. One beyond the end of the log is a `conflict`."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most events in a page; 500 where it is absent. A stream ignores it."),
        ("format" = Option<Format>, Query, description = "A page or a stream."),
        ("Last-Event-ID" = Option<u64>, Header, description = "The last sequence number that the client saw; counts before `after`.")
    ),
    responses(
        (
            status = 200,
            description = "A page, or a stream.",
            content(
                (EventPage = "application/json", example = json!(examples::events())),
                (String = "text/event-stream", example = json!(examples::stream()))
            )
        ),
        failures::Following
    )
)]
pub(super) async fn read(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
    QueryOf(reading): QueryOf<Reading>,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let session: SessionId = parse(&session)?;
    let after = resume_point(&headers, &reading)?;
    if let Some(limit) = reading.limit
        && !(1..=MAX_EVENTS).contains(&limit)
    {
        return Err(ApiFailure::bad_request(format!("`limit` is {limit}, it must be between 1 and {MAX_EVENTS}")));
    }
    let format = reading.format.unwrap_or_else(|| accepted(&headers));
    let feed = Feed::open(state.sessions.clone(), session, after, state.stopping.clone()).await?;
    let head_seq = feed.head();
    if let Some(after) = after
        && after > head_seq
    {
        // A silent answer would make the client miss every event up to its number.
        let message = format!("the session's last event is {head_seq}, there is nothing after {after}");
        return Err(ApiFailure::new(ErrorCode::Conflict, message).with_hint("read it again from the beginning"));
    }
    if format == Format::Sse {
        let place = place(&state)?;
        return Ok(stream_of(feed, place, &state));
    }
    let limit = reading.limit.unwrap_or(MAX_EVENTS);
    let events = state.sessions.events(session, after.unwrap_or(0), limit).await?;
    let head_seq = head_seq.max(events.last().map_or(0, |event| event.seq));
    Ok(Json(EventPage { events, head_seq }).into_response())
}

fn resume_point(headers: &HeaderMap, reading: &Reading) -> Result<Option<u64>, ApiFailure> {
    // The store counts with 63 bits.
    let fits = |number: &u64| i64::try_from(*number).is_ok();
    if let Some(after) = reading.after.filter(|after| !fits(after)) {
        return Err(ApiFailure::bad_request(format!("`after` is {after}, which is no sequence number")));
    }
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(reading.after) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok()).filter(fits);
    number.map(Some).ok_or_else(|| ApiFailure::bad_request("`Last-Event-ID` is not a sequence number"))
}

/// A page only for those who ask for JSON and not for a stream.
fn accepted(headers: &HeaderMap) -> Format {
    let accept = |kind: &str| {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.split(';').next().is_some_and(|k| k.trim() == kind))
    };
    if accept("application/json") && !accept("text/event-stream") { Format::Json } else { Format::Sse }
}

/// A place for one more stream, given back when the stream ends.
fn place(state: &ApiState) -> Result<Place, ApiFailure> {
    let permit = Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let message = format!("{} streams of events are open already", state.limits.streams);
        ApiFailure::new(ErrorCode::Overloaded, message).with_hint("close one, or read pages with `format=json`")
    })?;
    metrics().event_streams.add(1, &[]);
    Ok(Place { _permit: permit })
}

/// The place of an open stream.
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics().event_streams.add(-1, &[]);
    }
}

fn stream_of(feed: Feed, place: Place, state: &ApiState) -> Response {
    let alive = KeepAlive::new().interval(state.limits.heartbeat).text("alive");
    let mut response = Sse::new(frames(feed, place)).keep_alive(alive).into_response();
    // Proxies that buffer would hold back what should be seen live.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), header::HeaderValue::from_static("no"));
    response
}

fn frames(feed: Feed, place: Place) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    stream::unfold((feed, place), |(mut feed, place)| async move {
        let frame = feed.next().await?;
        let event = match &frame {
            Frame::Event(event) => data(SseEvent::default().id(event.seq.to_string()), event.as_ref())?,
            Frame::CaughtUp(seq) => data(SseEvent::default().event("caught_up"), &CaughtUp { seq: *seq })?,
            Frame::Delta(delta) => data(SseEvent::default().event("delta"), delta)?,
        };
        Some((Ok(event), (feed, place)))
    })
}

/// JSON has no raw line breaks, so a frame is always one `data:` line. A value that does not become JSON is a defect
/// and ends the stream; the client sees the gap nowhere, because it resumes from the event before.
fn data(event: SseEvent, value: &impl Serialize) -> Option<SseEvent> {
    match event.json_data(value) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(%error, "an event could not be written as JSON, stream ended");
            None
        }
    }
}
