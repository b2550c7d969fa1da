//! What a sandbox did on the network, as events of its session. Bounded: the door sums up what repeats, and a session's log
//! takes a limited number.

use ostler_protocol::EventBody;
use ostler_protocol::event::EgressVerdict;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::mailbox::Message;
use crate::door::{Decision, DoorEvent, Verdict};

/// Events of the network that one sandbox may add to the log of its session.
const MOST: usize = 2000;

/// Makes events of what happens at a door. Ends with the workspace, or when its log takes no more.
pub(super) async fn follow(mut door: broadcast::Receiver<DoorEvent>, mailbox: mpsc::Sender<Message>) {
    let mut taken = 0;
    loop {
        let body = match door.recv().await {
            // Told however many others there were.
            Ok(event @ DoorEvent::Spent { .. }) => event_body(event),
            Ok(_) if taken > MOST => continue,
            Ok(_) if taken == MOST => {
                notice("what else the sandbox does on the network stands only in the host's log and the metrics")
            }
            Ok(event) => event_body(event),
            Err(broadcast::error::RecvError::Lagged(_)) if taken >= MOST => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                notice(format!("{missed} more events of the network could not be taken down in time"))
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        taken += 1;
        let (durable, noted) = oneshot::channel();
        if mailbox.send(Message::Note { body, durable }).await.is_err() || !matches!(noted.await, Ok(Ok(()))) {
            return;
        }
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

    #[tokio::test]
    async fn a_full_log_of_the_network_still_says_that_it_was_closed() {
        let (door, events) = broadcast::channel(16);
        let (mailbox, mut messages) = mpsc::channel(16);
        let following = tokio::spawn(follow(events, mailbox));
        let mut notes = Vec::new();
        let unlisted = || DoorEvent::Unlisted { times: 1 };
        for _ in 0..=MOST {
            door.send(unlisted()).unwrap();
            let Some(Message::Note { body, durable }) = messages.recv().await else { panic!("a note was expected") };
            let _ = durable.send(Ok(()));
            notes.push(body);
        }
        door.send(unlisted()).unwrap();
        door.send(DoorEvent::Spent { why: "enough".into() }).unwrap();
        let Some(Message::Note { body, durable }) = messages.recv().await else { panic!("a note was expected") };
        let _ = durable.send(Ok(()));
        assert_eq!(body, notice("the network is closed: enough"));
        let text = "what else the sandbox does on the network stands only in the host's log and the metrics";
        assert_eq!(notes.last(), Some(&notice(text)));
        drop(door);
        following.await.unwrap();
    }
}
