//! The one place that every way out passes: policy, budget, gate, address, in this order, before anything is dialled.
//!
//! ```text
//!  TLS ────────┐
//!  each request│                 refused: reported, nothing was looked up or dialled
//!  of HTTP ────┼─► admit ─► policy ─► budget ─► gate ─► Permit ─► connect ─► resolve ─► check ─► dial that address
//!  CONNECT ────┤
//!  tcp_ports ──┘
//! ```
//!
//! Owns the order and what is told of it. Does not know how the wish was read from the wire.

use std::sync::Arc;
use std::time::Duration;

use ostler_protocol::SessionId;
use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::dial::{DialError, dial};
use super::gate::{EgressGate, EgressRequest, GateVerdict, OpenGate, Protocol};
use super::lookup::{Lookups, Share, SystemResolver};
use super::meter::{Account, Counted, Meter};
use super::pace::{Pace, Rate};
use super::relay::Rooms;
use super::report::{Decision, Reporter, Verdict, shown};
use crate::egress::{Allowed, Host, Policy, Refusal, Wanted};
use crate::telemetry::chain;

/// Most connections of all doors together, beyond those that each one always has.
const MOST_PLACES: usize = 4096;

/// Longest wait for the gate.
const GATE: Duration = Duration::from_secs(10);

/// What lies behind the doors of all sandboxes of one environment. Cheap to clone.
#[derive(Clone)]
pub struct Outside {
    /// What may leave.
    pub policy: Arc<Policy>,
    /// Who finds addresses.
    pub lookups: Arc<Lookups>,
    /// Who else decides.
    pub gate: Arc<dyn EgressGate>,
    /// Connections of all doors together, beyond those that each one always has.
    pub places: Arc<Semaphore>,
}

impl Outside {
    /// By the rules of a policy, with the machine's resolver, and nobody else who decides.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let lookups = Arc::new(Lookups::new(Arc::new(SystemResolver)));
        let places = Arc::new(Semaphore::new(places()));
        Self { policy: Arc::new(policy), lookups, gate: Arc::new(OpenGate), places }
    }
}

/// How many connections all doors may have together beyond their own: each takes two descriptors, and a quarter of those that
/// this process may open is for them.
fn places() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 8).unwrap_or(usize::MAX).min(MOST_PLACES)
}

/// The way out of one sandbox.
pub(super) struct Egress {
    outside: Outside,
    session: SessionId,
    meter: Arc<Meter>,
    rooms: Rooms,
    share: Share,
    pace: Pace,
    reporter: Arc<Reporter>,
}

/// What may be dialled.
pub(super) struct Permit {
    pub(super) host: Host,
    pub(super) port: u16,
    protocol: Protocol,
    allowed: Allowed,
}

/// Why something does not get through; reported already.
#[derive(Debug)]
pub(super) struct Stopped {
    /// In words for the sandbox; what is reported may say more.
    pub(super) reason: String,
    /// Whether nobody forbade it: it was tried and failed.
    pub(super) failed: bool,
}

impl Egress {
    pub(super) fn new(
        outside: Outside,
        session: SessionId,
        account: Arc<Account>,
        wishes: Rate,
        reporter: Arc<Reporter>,
    ) -> Self {
        let meter = Arc::new(Meter::new(outside.policy.budget, account, Arc::clone(&reporter)));
        Self {
            outside,
            session,
            meter,
            rooms: Rooms::default(),
            share: Share::default(),
            pace: Pace::new(wishes),
            reporter,
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.outside.policy
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// When the next request of HTTP may be answered.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Places for connections that all doors share.
    pub(super) fn places(&self) -> &Arc<Semaphore> {
        &self.outside.places
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Decides about a wish.
    pub(super) async fn admit(&self, host: &Host, port: u16, wanted: Wanted<'_>) -> Result<Permit, Stopped> {
        let protocol = protocol(wanted);
        let stop = |reason: String| self.stop(host, Some(port), Some(protocol), reason);
        let allowed = self.outside.policy.decide(host, port, wanted).map_err(|refusal| match wanted {
            Wanted::Http { overriding: Some(header), .. } if refusal == Refusal::Override => {
                stop(format!("{refusal}: `{header}`"))
            }
            Wanted::Http { method, path, .. } => stop(format!("{refusal} ({} {})", shown(method), shown(path))),
            _ => stop(refusal.to_string()),
        })?;
        if let Some(why) = self.meter.spent() {
            return Err(stop(why.to_owned()));
        }
        let (method, path) = match wanted {
            Wanted::Http { method, path, .. } => (Some(method.to_owned()), Some(path.to_owned())),
            _ => (None, None),
        };
        let request = EgressRequest { session: self.session, host: host.to_string(), port, protocol, method, path };
        match timeout(GATE, self.outside.gate.ask(&request)).await {
            Ok(GateVerdict::Pass) => Ok(Permit { host: host.clone(), port, protocol, allowed }),
            Ok(GateVerdict::Deny { reason }) => Err(stop(shown(&reason))),
            Err(_) => Err(stop("whoever must be asked did not answer in time".to_owned())),
        }
    }

    /// Connects to what was permitted, and reports it.
    pub(super) async fn connect(&self, permit: &Permit) -> Result<Counted, Stopped> {
        let Permit { host, port, protocol, allowed } = permit;
        match dial((&self.outside.lookups, &self.share), host, *port, allowed).await {
            Ok(stream) => {
                // Pieces of a conversation must not wait for each other.
                let _ = stream.set_nodelay(true);
                self.used(permit);
                Ok(Counted::new(stream, Arc::clone(&self.meter), (host.clone(), *port)))
            }
            Err(error) if error.is_refusal() => {
                let stopped = self.stop(host, Some(*port), Some(*protocol), error.to_string());
                Err(Stopped { reason: error.told(), ..stopped })
            }
            Err(error) => Err(self.fail(permit, &error)),
        }
    }

    /// Reports that a permit was used.
    pub(super) fn used(&self, permit: &Permit) {
        self.reporter.decided(Decision {
            host: permit.host.to_string(),
            port: Some(permit.port),
            protocol: Some(permit.protocol),
            verdict: Verdict::Allowed { rule: permit.allowed.rule.clone() },
        });
    }

    /// Reports that something is refused.
    pub(super) fn stop(
        &self,
        host: &Host,
        port: Option<u16>,
        protocol: Option<Protocol>,
        reason: impl Into<String>,
    ) -> Stopped {
        let reason = reason.into();
        let verdict = Verdict::Refused { reason: reason.clone() };
        self.reporter.decided(Decision { host: host.to_string(), port, protocol, verdict });
        Stopped { reason, failed: false }
    }

    fn fail(&self, permit: &Permit, error: &DialError) -> Stopped {
        let verdict = Verdict::Failed { reason: chain(error) };
        let (port, protocol) = (Some(permit.port), Some(permit.protocol));
        self.reporter.decided(Decision { host: permit.host.to_string(), port, protocol, verdict });
        Stopped { reason: error.told(), failed: true }
    }
}

fn protocol(wanted: Wanted<'_>) -> Protocol {
    match wanted {
        Wanted::Tls => Protocol::Tls,
        Wanted::Http { .. } => Protocol::Http,
        Wanted::Tcp => Protocol::Tcp,
    }
}
