//! What a sandbox did at its door, for people to see; bounded, whatever the sandbox does.
//!
//! ```text
//!  a decision that is new in this window ──► told at once
//!  the same again ──────────────────────────► counted, told with its number at the end of the window
//!  more different ones than a window holds ─► counted together; what was allowed by its rule, and never in the places of refusals
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use ostler_protocol::SessionId;
use tokio::sync::broadcast;

use super::gate::Protocol;
use crate::egress::Host;
use crate::telemetry::{label, metrics};

/// Length of a window.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// Refusals that a window tells apart, and places of which it counts the bytes.
const DISTINCT: usize = 32;

/// Hosts and ports that were allowed that a window tells apart.
const DISTINCT_ALLOWED: usize = 128;

/// The place of bytes that are not counted by host, with port 0.
pub const OTHERS: &str = "other hosts";

/// Reports that a slow reader may be behind.
const BEHIND: usize = 1024;

/// Longest text in a report; the longest name that DNS knows.
const MAX_TEXT: usize = 255;

/// Something that people may want to know of a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorEvent {
    /// A decision, and how often it was taken since it was told last.
    Decided {
        /// Which.
        decision: Decision,
        /// How often.
        times: u64,
    },
    /// Connections that ended, and what passed over those that go on.
    Traffic {
        /// The host at their other end.
        host: String,
        /// Its port.
        port: u16,
        /// How many ended.
        connections: u64,
        /// Bytes from the sandbox.
        up: u64,
        /// Bytes to the sandbox.
        down: u64,
    },
    /// The sandbox may send and receive nothing more.
    Spent {
        /// Why.
        why: String,
    },
    /// Further decisions, too many to tell them apart.
    Unlisted {
        /// How many.
        times: u64,
    },
}

/// What was decided about a wish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The host: a name or an address.
    pub host: String,
    /// Its port; none for look-ups.
    pub port: Option<u16>,
    /// What would be spoken, as far as it is known.
    pub protocol: Option<Protocol>,
    /// What was decided.
    pub verdict: Verdict,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was let through.
    Allowed {
        /// The rule.
        rule: String,
    },
    /// It was refused.
    Refused {
        /// Why.
        reason: String,
    },
    /// It was allowed, and nobody could be reached.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How often a door was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Connections to services behind the door.
    pub served: u64,
    /// Connections, requests and look-ups that were refused or failed.
    pub refused: u64,
    /// Connections and requests that were let through to the outside.
    pub allowed: u64,
    /// Names that were looked up and answered.
    pub resolved: u64,
}

/// Takes note of what happens at a door.
#[derive(Debug)]
pub(super) struct Reporter {
    session: SessionId,
    sender: broadcast::Sender<DoorEvent>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counters: DoorCounters,
    journal: Journal,
}

impl Reporter {
    pub(super) fn new(session: SessionId) -> Self {
        Self { session, sender: broadcast::channel(BEHIND).0, state: Mutex::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<DoorEvent> {
        self.sender.subscribe()
    }

    pub(super) fn counters(&self) -> DoorCounters {
        self.state().counters
    }

    pub(super) fn served(&self) {
        self.state().counters.served += 1;
    }

    pub(super) fn resolved(&self) {
        self.state().counters.resolved += 1;
        metrics().egress.add(1, &[label("verdict", "allowed"), label("protocol", Protocol::Dns.as_str())]);
    }

    pub(super) fn decided(&self, decision: Decision) {
        let verdict = match decision.verdict {
            Verdict::Allowed { .. } => "allowed",
            Verdict::Refused { .. } => "refused",
            Verdict::Failed { .. } => "failed",
        };
        let protocol = decision.protocol.map_or("unknown", Protocol::as_str);
        metrics().egress.add(1, &[label("verdict", verdict), label("protocol", protocol)]);
        let mut state = self.state();
        match decision.verdict {
            Verdict::Allowed { .. } => state.counters.allowed += 1,
            _ => state.counters.refused += 1,
        }
        let new = state.journal.decided(decision);
        drop(state);
        if let Some(decision) = new {
            let Decision { host, port, protocol, verdict } = &decision;
            tracing::info!(session = %self.session, host, port, ?protocol, ?verdict, "a door decided");
            self.send(DoorEvent::Decided { decision, times: 1 });
        }
    }

    /// Connections to the outside that ended (or none, where one goes on), bytes up and down.
    pub(super) fn passed(&self, host: &Host, port: u16, sums: [u64; 3]) {
        let [_, up, down] = sums;
        metrics().egress_bytes.add(up, &[label("direction", "up")]);
        metrics().egress_bytes.add(down, &[label("direction", "down")]);
        self.state().journal.passed(host.to_string(), port, sums);
    }

    /// Tells it. Nobody need be listening.
    pub(super) fn send(&self, event: DoorEvent) {
        let _ = self.sender.send(event);
    }

    /// Tells what was only counted, and begins a new window.
    pub(super) fn turn_window(&self) {
        let told = self.state().journal.turn();
        told.into_iter().for_each(|event| self.send(event));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns the windows of a door for as long as it is open.
pub(super) async fn turn_windows(reporter: Weak<Reporter>) {
    let mut windows = tokio::time::interval_at(tokio::time::Instant::now() + WINDOW, WINDOW);
    loop {
        windows.tick().await;
        let Some(reporter) = reporter.upgrade() else { return };
        reporter.turn_window();
    }
}

impl Drop for Reporter {
    /// Tells the last window, once the last connection of a closed door has ended.
    fn drop(&mut self) {
        self.turn_window();
    }
}

/// A text as it may be shown.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// What happened in a window. No clock: others say when it turns.
#[derive(Debug, Default)]
struct Journal {
    /// Decisions of this window, with how often each was taken and not told.
    decisions: HashMap<Decision, u64>,
    /// The same for what was allowed.
    allowed: HashMap<Decision, u64>,
    /// Connections that ended, by host and port: how many, and their bytes.
    traffic: HashMap<(String, u16), [u64; 3]>,
    unlisted: u64,
}

impl Journal {
    /// Takes note of a decision and returns it where it is to be told at once.
    fn decided(&mut self, mut decision: Decision) -> Option<Decision> {
        let is_allowed = matches!(decision.verdict, Verdict::Allowed { .. });
        let (places, most) =
            if is_allowed { (&mut self.allowed, DISTINCT_ALLOWED) } else { (&mut self.decisions, DISTINCT) };
        if is_allowed && places.len() >= most && !places.contains_key(&decision) {
            // There are only so many rules and protocols.
            (decision.host, decision.port) = (OTHERS.to_owned(), None);
        } else if places.len() >= most && !places.contains_key(&decision) {
            self.unlisted += 1;
            return None;
        }
        if let Some(untold) = places.get_mut(&decision) {
            *untold += 1;
            return None;
        }
        places.insert(decision.clone(), 0);
        Some(decision)
    }

    fn passed(&mut self, host: String, port: u16, more: [u64; 3]) {
        let place = (host, port);
        let place = if self.traffic.len() < DISTINCT || self.traffic.contains_key(&place) {
            place
        } else {
            (OTHERS.to_owned(), 0)
        };
        let sums = self.traffic.entry(place).or_default();
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum += more;
        }
    }

    /// Everything that was only counted, in a stable order.
    fn turn(&mut self) -> Vec<DoorEvent> {
        let told = std::mem::take(self);
        let mut decisions: Vec<(Decision, u64)> =
            told.decisions.into_iter().chain(told.allowed).filter(|(_, untold)| *untold > 0).collect();
        decisions.sort_by(|(a, _), (b, _)| (&a.host, a.port).cmp(&(&b.host, b.port)));
        let mut traffic: Vec<_> = told.traffic.into_iter().collect();
        traffic.sort();
        let decided = decisions.into_iter().map(|(decision, times)| DoorEvent::Decided { decision, times });
        let traffic = traffic.into_iter().map(|((host, port), [connections, up, down])| DoorEvent::Traffic {
            host,
            port,
            connections,
            up,
            down,
        });
        let unlisted = (told.unlisted > 0).then_some(DoorEvent::Unlisted { times: told.unlisted });
        decided.chain(traffic).chain(unlisted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str) -> Decision {
        let verdict = Verdict::Refused { reason: "no rule".into() };
        Decision { host: host.into(), port: Some(443), protocol: Some(Protocol::Tls), verdict }
    }

    #[test]
    fn the_same_decision_is_told_once_and_then_counted() {
        let mut journal = Journal::default();
        let told = (0..1000).filter_map(|_| journal.decided(refused("a.example"))).count();
        assert_eq!(told, 1);
        assert_eq!(journal.turn(), [DoorEvent::Decided { decision: refused("a.example"), times: 999 }]);
        assert_eq!(journal.turn(), []);
        assert_eq!(journal.decided(refused("a.example")), Some(refused("a.example")));
        assert_eq!(journal.turn(), [], "what was told is not told again");
    }

    #[test]
    fn a_flood_of_different_ones_is_counted_together() {
        let mut journal = Journal::default();
        let told = (0..1000).filter_map(|number| journal.decided(refused(&format!("{number}.example")))).count();
        assert_eq!(told, DISTINCT);
        assert_eq!(journal.turn(), [DoorEvent::Unlisted { times: 1000 - DISTINCT as u64 }]);
    }

    #[test]
    fn refusals_never_hide_what_was_allowed() {
        let allowed = |host: &str, port| {
            let verdict = Verdict::Allowed { rule: "a rule".into() };
            Decision { host: host.into(), port, protocol: Some(Protocol::Tls), verdict }
        };
        let mut journal = Journal::default();
        (0..1000).for_each(|number| drop(journal.decided(refused(&format!("{number}.example")))));
        assert_eq!(journal.decided(allowed("a.example", Some(443))), Some(allowed("a.example", Some(443))));
        let told = (0..1000).filter_map(|number| journal.decided(allowed(&format!("{number}.example"), Some(443))));
        assert_eq!(told.last(), Some(allowed(OTHERS, None)), "the rest by its rule");
        let rest = 1000 - DISTINCT_ALLOWED as u64;
        let counted = DoorEvent::Decided { decision: allowed(OTHERS, None), times: rest };
        assert!(journal.turn().contains(&counted));
    }

    #[test]
    fn bytes_are_summed_by_place_and_the_places_are_few() {
        let mut journal = Journal::default();
        (0..3).for_each(|_| journal.passed("a.example".into(), 443, [1, 10, 100]));
        let traffic = |host: &str, port, connections, up, down| DoorEvent::Traffic {
            host: host.into(),
            port,
            connections,
            up,
            down,
        };
        assert_eq!(journal.turn(), [traffic("a.example", 443, 3, 30, 300)]);
        (0..1000).for_each(|number| journal.passed(format!("{number}.example"), 443, [1, 1, 1]));
        let told = journal.turn();
        assert_eq!(told.len(), DISTINCT + 1);
        let rest = 1000 - DISTINCT as u64;
        assert!(told.contains(&traffic("other hosts", 0, rest, rest, rest)), "{told:?}");
    }

    #[test]
    fn a_name_is_shown_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}[31m.example"), "a\\nb\\u{1b}[31m.example");
    }
}
