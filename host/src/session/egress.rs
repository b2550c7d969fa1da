//! What a sandbox did on the network, as events of its session. Bounded: the door sums up what repeats, and a session's log
//! takes a limited number.

use std::time::Duration;

use ostler_protocol::EventBody;
use ostler_protocol::event::EgressVerdict;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use super::mailbox::Message;
use super::state::Network;
use crate::door::{Bytes, Decision, DoorEvent, OTHERS, Verdict};

/// Events that the log of one session takes of what was refused or failed, and as many of what was allowed and passed, whatever
/// number of sandboxes it has. They are apart, so that refusals, which cost nothing, never hide what got out.
const MOST: usize = 1000;

/// Time between two sums of what passed, once the log takes nothing else.
const LATER: Duration = Duration::from_secs(15 * 60);

/// Makes events of what happens at a door. `logged` is what the log has already. Ends with the workspace.
pub(super) async fn follow(
    mut door: broadcast::Receiver<DoorEvent>,
    mailbox: mpsc::Sender<Message>,
    mut logged: Network,
) {
    // What passed is put down however many events there are: the budget goes on from it.
    let (mut rest, mut summed) = (Rest::default(), Instant::now());
    loop {
        let event = match door.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) if logged.refusals >= MOST => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                logged.refusals += 1;
                let text = format!("{missed} more events of the network could not be taken down in time");
                if note(&mailbox, notice(text)).await {
                    continue;
                }
                return;
            }
            Err(broadcast::error::RecvError::Closed) => break,
        };
        let body = match logged.place(&event) {
            // Told however many others there were.
            _ if matches!(event, DoorEvent::Spent { .. }) => event_body(event),
            (taken, what) if *taken >= MOST => {
                let first = std::mem::replace(taken, MOST + 1) == MOST;
                let passed = rest.takes(&event) && summed.elapsed() >= LATER;
                if first {
                    notice(format!("what else {what} on the network stands only in the host's log and the metrics"))
                } else if passed {
                    summed = Instant::now();
                    std::mem::take(&mut rest).event()
                } else {
                    continue;
                }
            }
            (taken, _) => {
                *taken += 1;
                event_body(event)
            }
        };
        if !note(&mailbox, body).await {
            return;
        }
    }
    if rest != Rest::default() {
        note(&mailbox, rest.event()).await;
    }
}

impl Network {
    /// Among which events of the log this one is, and what they are about.
    fn place(&mut self, event: &DoorEvent) -> (&mut usize, &'static str) {
        match event {
            DoorEvent::Decided { decision: Decision { verdict: Verdict::Allowed { .. }, .. }, .. }
            | DoorEvent::Traffic { .. } => (&mut self.passages, "passes"),
            _ => (&mut self.refusals, "is refused"),
        }
    }
}

async fn note(mailbox: &mpsc::Sender<Message>, body: EventBody) -> bool {
    let (durable, noted) = oneshot::channel();
    mailbox.send(Message::Note { body, durable }).await.is_ok() && matches!(noted.await, Ok(Ok(())))
}

/// What has passed and is not in the log.
pub(super) fn untold(passed: Bytes, logged: Bytes) -> Option<EventBody> {
    let bytes = Bytes { up: passed.up.saturating_sub(logged.up), down: passed.down.saturating_sub(logged.down) };
    (bytes != Bytes::default()).then(|| Rest { connections: 0, bytes }.event())
}

/// What passed and is not told host by host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    connections: u64,
    bytes: Bytes,
}

impl Rest {
    /// Adds what passed, where the event tells of that.
    fn takes(&mut self, event: &DoorEvent) -> bool {
        let DoorEvent::Traffic { connections, up, down, .. } = event else { return false };
        self.connections += connections;
        self.bytes.up += up;
        self.bytes.down += down;
        true
    }

    fn event(self) -> EventBody {
        let Self { connections, bytes: Bytes { up, down } } = self;
        event_body(DoorEvent::Traffic { host: OTHERS.to_owned(), port: 0, connections, up, down })
    }
}

fn notice(text: impl Into<String>) -> EventBody {
    EventBody::Notice { text: text.into() }
}

fn event_body(event: DoorEvent) -> EventBody {
    match event {
        DoorEvent::Decided { decision: Decision { host, port, protocol, verdict }, times } => {
            let (verdict, why) = match verdict {
                Verdict::Allowed { rule } => (EgressVerdict::Allowed, rule),
                Verdict::Refused { reason } => (EgressVerdict::Refused, reason),
                Verdict::Failed { reason } => (EgressVerdict::Failed, reason),
            };
            EventBody::EgressDecided { host, port, protocol, verdict, why, times }
        }
        DoorEvent::Traffic { host, port, connections, up, down } => {
            EventBody::EgressTraffic { host, port, connections, bytes_up: up, bytes_down: down }
        }
        DoorEvent::Spent { why } => notice(format!("the network is closed: {why}")),
        DoorEvent::Unlisted { times } => {
            notice(format!("{times} more decisions about the network, each of another kind"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::state::State;

    fn decided(verdict: Verdict) -> DoorEvent {
        let decision = Decision { host: "a.example".into(), port: Some(443), protocol: None, verdict };
        DoorEvent::Decided { decision, times: 1 }
    }

    fn refused() -> DoorEvent {
        decided(Verdict::Refused { reason: "no".into() })
    }

    fn allowed() -> DoorEvent {
        decided(Verdict::Allowed { rule: "a rule".into() })
    }

    fn traffic(host: &str, port: u16, connections: u64, up: u64, down: u64) -> DoorEvent {
        DoorEvent::Traffic { host: host.into(), port, connections, up, down }
    }

    /// What stands in a log that has `logged` already, after these events.
    async fn log(logged: Network, told: Vec<DoorEvent>) -> Vec<EventBody> {
        let (door, events) = broadcast::channel(told.len().max(1));
        let (mailbox, mut messages) = mpsc::channel(16);
        told.into_iter().for_each(|event| assert_eq!(door.send(event).unwrap(), 1));
        drop(door);
        let following = tokio::spawn(follow(events, mailbox, logged));
        let mut notes = Vec::new();
        while let Some(Message::Note { body, durable }) = messages.recv().await {
            let _ = durable.send(Ok(()));
            notes.push(body);
        }
        following.await.unwrap();
        notes
    }

    #[tokio::test]
    async fn a_log_that_is_full_of_refusals_still_takes_what_passes_and_that_it_was_closed() {
        let mut told = vec![refused(); 3 * MOST];
        told.extend([allowed(), DoorEvent::Spent { why: "enough".into() }]);
        let notes = log(Network::default(), told).await;
        let text = "what else is refused on the network stands only in the host's log and the metrics";
        assert_eq!(notes.len(), MOST + 3);
        assert_eq!(
            notes[MOST - 1..],
            [event_body(refused()), notice(text), event_body(allowed()), notice("the network is closed: enough")]
        );
    }

    #[tokio::test]
    async fn a_full_log_takes_nothing_of_the_next_sandbox_but_what_passed() {
        let full = Network { refusals: MOST + 1, passages: MOST + 1, ..Network::default() };
        let told = vec![
            DoorEvent::Unlisted { times: 1 },
            allowed(),
            traffic("a.example", 443, 1, 10, 100),
            traffic("b.example", 443, 0, 1, 2),
        ];
        assert_eq!(log(full, told).await, [event_body(traffic(OTHERS, 0, 1, 11, 102))]);
        let notes =
            log(Network { passages: MOST, ..Network::default() }, vec![traffic("a.example", 443, 1, 2, 3)]).await;
        let text = "what else passes on the network stands only in the host's log and the metrics";
        assert_eq!(notes, [notice(text), event_body(traffic(OTHERS, 0, 1, 2, 3))]);
    }

    #[test]
    fn what_passed_is_folded_and_what_is_missing_is_put_down() {
        let mut state = State::default();
        let all = Bytes { up: 7, down: 9 };
        state.apply(&event_body(traffic("a.example", 443, 1, 5, 9)));
        state.apply(&event_body(refused()));
        state.apply(&event_body(allowed()));
        let missing = untold(all, state.network.passed).unwrap();
        state.apply(&missing);
        assert_eq!(state.network, Network { refusals: 1, passages: 3, passed: all });
        assert_eq!(untold(all, state.network.passed), None);
    }
}
