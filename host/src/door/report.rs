//! What a sandbox tried and was refused, for people to see; bounded, whatever the sandbox does.

use std::net::SocketAddrV4;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

/// Reports in one window of time.
const BURST: u32 = 10;

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(10);

/// Reports that a slow reader may be behind.
const BEHIND: usize = 64;

/// Longest name in a report; the longest that DNS knows.
const MAX_NAME: usize = 255;

/// A sandbox was refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorEvent {
    /// What it wanted.
    pub attempt: Attempt,
    /// How many refusals before this one were not reported, because there were too many.
    pub unreported: u64,
}

/// What a sandbox wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To reach an address. Egress is closed.
    Connect(SocketAddrV4),
    /// To reach something that cannot be told any more: the connection was not redirected.
    ConnectUnknown,
    /// To look up a name that does not exist behind the door. Control characters are escaped.
    Resolve(String),
    /// One more connection than it may have.
    TooMany,
}

impl std::fmt::Display for DoorEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.attempt {
            Attempt::Connect(address) => write!(f, "the sandbox was refused a connection to {address}")?,
            Attempt::ConnectUnknown => write!(f, "the sandbox was refused a connection")?,
            Attempt::Resolve(name) => write!(f, "the sandbox was refused the name {name}")?,
            Attempt::TooMany => write!(f, "the sandbox has too many connections open")?,
        }
        if self.unreported > 0 {
            write!(f, " ({} refusals before it were not reported)", self.unreported)?;
        }
        Ok(())
    }
}

/// How often a door was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Connections that were served.
    pub served: u64,
    /// Connections and lookups that were refused.
    pub refused: u64,
}

/// Takes note of what happens at a door.
#[derive(Debug)]
pub(super) struct Reporter {
    sender: broadcast::Sender<DoorEvent>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counters: DoorCounters,
    limiter: Limiter,
}

impl Reporter {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::channel(BEHIND).0, state: Mutex::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<DoorEvent> {
        self.sender.subscribe()
    }

    pub(super) fn counters(&self) -> DoorCounters {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counters
    }

    pub(super) fn served(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counters.served += 1;
    }

    pub(super) fn refused(&self, attempt: Attempt) {
        let unreported = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.counters.refused += 1;
            state.limiter.admit(Instant::now())
        };
        let Some(unreported) = unreported else { return };
        tracing::info!(?attempt, unreported, "a sandbox was refused at its door");
        // Nobody need be listening.
        let _ = self.sender.send(DoorEvent { attempt, unreported });
    }
}

/// A name as it may be shown.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .take(MAX_NAME)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// At most [`BURST`] in each [`WINDOW`].
#[derive(Debug, Default)]
struct Limiter {
    began: Option<Instant>,
    admitted: u32,
    unreported: u64,
}

impl Limiter {
    /// Whether to report now, with the number of refusals that were kept quiet before.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.began = Some(now);
            self.admitted = 0;
        }
        if self.admitted == BURST {
            self.unreported += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_reported_in_bursts_that_say_how_much_is_missing() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| limiter.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limiter.admit(start + WINDOW), Some(990));
        assert_eq!(limiter.admit(start + WINDOW), Some(0));
    }

    #[test]
    fn a_name_is_shown_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}[31m.example"), "a\\nb\\u{1b}[31m.example");
    }
}
