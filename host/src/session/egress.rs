//! What a sandbox did on the network, as events of its session. Bounded: the door sums up what repeats, and a session's log
//! takes a limited number.

use ostler_protocol::EventBody;
use ostler_protocol::event::{EgressProtocol, EgressVerdict};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::mailbox::Message;
use crate::door::{Decision, DoorEvent, Protocol, Verdict};

/// Events of the network that one sandbox may add to the log of its session.
const MOST: usize = 2000;

/// Makes events of what happens at a door. Ends with the workspace.
pub(super) async fn follow(mut door: broadcast::Receiver<DoorEvent>, mailbox: mpsc::Sender<Message>) {
    for number in 1..=MOST {
        let body = match door.recv().await {
            Ok(_) if number == MOST => {
                notice("what the sandbox does on the network from now on stands only in the metrics")
            }
            Ok(event) => event_body(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                notice(format!("{missed} more events of the network could not be taken down in time"))
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let (durable, noted) = oneshot::channel();
        if mailbox.send(Message::Note { body, durable }).await.is_err() || noted.await.is_err() {
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
            EventBody::EgressDecided { host, port, protocol: protocol.map(word), verdict, why, times }
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

fn word(protocol: Protocol) -> EgressProtocol {
    match protocol {
        Protocol::Tls => EgressProtocol::Tls,
        Protocol::Http => EgressProtocol::Http,
        Protocol::Tcp => EgressProtocol::Tcp,
        Protocol::Dns => EgressProtocol::Dns,
    }
}
