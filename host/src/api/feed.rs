//! A session's events as one reader sees them: everything durable in order, then what happens live.
//!
//! ```text
//!  subscribe ─► pages from the log up to the head ─► caught up ─┬─► head grew: next page
//!                        ▲                                      └─► nothing durable: deltas
//!                        └──────────────────────────────────────────────┘
//! ```
//!
//! The subscription is taken before the first page is read, so nothing falls between the two. A reader is served at
//! its own pace: it holds at most one page of events and one merged delta, whatever the session does meanwhile; deltas
//! that it was too slow for are lost, events never. Does not know HTTP.

use std::collections::VecDeque;
use std::sync::Arc;

use ostler_protocol::{CallId, Delta, Event, EventBody, SessionId, TurnId};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::SessionService;
use crate::session::{SessionError, Subscription};
use crate::telemetry::chain;

/// Events read at once. An event holds at most head and tail of an output, so a page is a few MiB at the worst.
pub(super) const PAGE: usize = 64;

/// Deltas of the same origin that wait are merged up to this size, in bytes.
const MERGED_DELTA: usize = 16 * 1024;

/// Ended tool calls that are remembered so that their late deltas are dropped.
const ENDED_CALLS: usize = 64;

/// The next thing for a reader.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// A durable event.
    Event(Box<Event>),
    /// Everything durable was sent, up to this sequence number. Once in a feed.
    CaughtUp(u64),
    /// A piece of text on its way.
    Delta(Delta),
}

/// One reader's view of a session.
pub(super) struct Feed {
    sessions: Arc<dyn SessionService>,
    session: SessionId,
    cursor: u64,
    page: VecDeque<Event>,
    head: watch::Receiver<u64>,
    deltas: Option<broadcast::Receiver<Delta>>,
    waiting: Option<Delta>,
    superseded: Superseded,
    caught_up: bool,
    stopping: CancellationToken,
}

impl Feed {
    /// Subscribes; the feed begins after the event `after`.
    pub async fn open(
        sessions: Arc<dyn SessionService>,
        session: SessionId,
        after: Option<u64>,
        stopping: CancellationToken,
    ) -> Result<Self, SessionError> {
        let Subscription { head, deltas } = sessions.subscribe(session).await?;
        Ok(Self {
            sessions,
            session,
            cursor: after.unwrap_or(0),
            page: VecDeque::new(),
            head,
            deltas: Some(deltas),
            waiting: None,
            superseded: Superseded::default(),
            caught_up: false,
            stopping,
        })
    }

    /// Sequence number of the session's last event.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// The next frame; `None` when the host stops or the log cannot be read. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.stopping.is_cancelled() {
                return None;
            }
            if let Some(event) = self.page.pop_front() {
                self.cursor = event.seq;
                self.superseded.note(&event.body);
                return Some(Frame::Event(Box::new(event)));
            }
            if self.cursor < *self.head.borrow_and_update() {
                self.page = self.read().await?;
                continue;
            }
            if !self.caught_up {
                self.caught_up = true;
                return Some(Frame::CaughtUp(self.cursor));
            }
            // Events go first: a delta that waited behind its own event is then known to be superseded.
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                changed = self.head.changed() => changed.ok()?,
                delta = next_delta(&mut self.waiting, &mut self.deltas) => {
                    let delta = delta.filter(|delta| !self.superseded.covers(delta));
                    if let Some(delta) = delta {
                        return Some(Frame::Delta(delta));
                    }
                }
            }
        }
    }

    async fn read(&self) -> Option<VecDeque<Event>> {
        let events = match self.sessions.events(self.session, self.cursor, PAGE).await {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(session = %self.session, cursor = self.cursor, error = chain(&error), "feed ended");
                return None;
            }
        };
        // A gap would be kept for good by a reader that resumes after it. Ending the feed is the lesser harm.
        let expected = self.cursor + 1;
        let whole = !events.is_empty() && events.iter().zip(expected..).all(|(event, seq)| event.seq == seq);
        if !whole {
            let found = events.first().map(|event| event.seq);
            tracing::error!(session = %self.session, expected, found, "the log has a gap, feed ended");
            return None;
        }
        Some(events.into())
    }
}

/// The next delta, merged with those of the same origin that wait behind it. `None` where some were lost or no
/// more will come; then only events wake the reader.
async fn next_delta(waiting: &mut Option<Delta>, deltas: &mut Option<broadcast::Receiver<Delta>>) -> Option<Delta> {
    let Some(receiver) = deltas else { return std::future::pending().await };
    let mut delta = match waiting.take() {
        Some(delta) => delta,
        None => match receiver.recv().await {
            Ok(delta) => delta,
            Err(broadcast::error::RecvError::Lagged(_)) => return None,
            Err(broadcast::error::RecvError::Closed) => {
                *deltas = None;
                return None;
            }
        },
    };
    while let Ok(next) = receiver.try_recv() {
        if let Some(rest) = merge(&mut delta, next) {
            *waiting = Some(rest);
            break;
        }
    }
    Some(delta)
}

/// Appends `next` to `delta`, or gives it back where it has another origin or would grow too large.
fn merge(delta: &mut Delta, next: Delta) -> Option<Delta> {
    match (delta, next) {
        (Delta::ModelText { turn, step, text }, Delta::ModelText { turn: turn2, step: step2, text: more })
            if (*turn, *step) == (turn2, step2) && text.len() + more.len() <= MERGED_DELTA =>
        {
            text.push_str(&more);
            None
        }
        (Delta::ToolOutput { call, text }, Delta::ToolOutput { call: call2, text: more })
            if *call == call2 && text.len() + more.len() <= MERGED_DELTA =>
        {
            text.push_str(&more);
            None
        }
        (_, next) => Some(next),
    }
}

/// What events have made obsolete.
#[derive(Default)]
struct Superseded {
    turn: Option<(TurnId, u32)>,
    calls: VecDeque<CallId>,
}

impl Superseded {
    fn note(&mut self, body: &EventBody) {
        match body {
            EventBody::ModelResponded { turn, step, .. } | EventBody::ModelRetried { turn, step, .. } => {
                self.turn = Some((*turn, *step));
            }
            EventBody::TurnFinished { turn, .. } => self.turn = Some((*turn, u32::MAX)),
            EventBody::ToolFinished { call, .. } => {
                if self.calls.len() == ENDED_CALLS {
                    self.calls.pop_front();
                }
                self.calls.push_back(*call);
            }
            _ => {}
        }
    }

    fn covers(&self, delta: &Delta) -> bool {
        match delta {
            Delta::ModelText { turn, step, .. } => {
                self.turn.is_some_and(|(last, until)| last == *turn && *step <= until)
            }
            Delta::ToolOutput { call, .. } => self.calls.contains(call),
        }
    }
}
