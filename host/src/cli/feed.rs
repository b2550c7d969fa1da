//! The events of a session as they come, each once, however often the connection drops.
//!
//! ```text
//!  connect (Last-Event-ID) ─► frames ─► signals
//!      ▲                        │ dropped, silent, host gone
//!      └── outage, pause ◄──────┘        at most `Patience::attempts` times without a new event in between
//! ```
//!
//! Owns the cursor. Does not know what events mean or how they are shown.

use std::time::Duration;

use ostler_protocol::{Delta, ErrorCode, Event, SessionId};
use tokio::time::Instant;

use super::CliError;
use super::client::{Client, FrameStream};
use super::sse::Frame;
use crate::telemetry::chain;

const OPERATION: &str = "watch the session";

/// How a dropped connection is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections in a row without a new event before the session is given up.
    pub attempts: u32,
    /// Pause before the first; it doubles with each.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Default for Patience {
    /// About half a minute in all: a host that restarts is back by then.
    fn default() -> Self {
        Self { attempts: 8, first: Duration::from_millis(250), longest: Duration::from_secs(8) }
    }
}

/// What comes out of the feed.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// The host answered; what was missed follows.
    Connected,
    /// The next event.
    Event {
        /// As we understand it.
        event: Box<Event>,
        /// As it came: a later host may say more than we know.
        data: String,
    },
    /// A piece of text on its way.
    Delta(Delta),
    /// Everything that happened before the connection was made has come.
    CaughtUp,
    /// The connection dropped and is tried again.
    Outage(Outage),
}

/// A connection that dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Why.
    pub why: String,
    /// Time until it is tried again.
    pub pause: Duration,
    /// The how manieth try that will be.
    pub attempt: u32,
    /// How many there are.
    pub limit: u32,
}

/// The feed of a session.
pub struct Feed<'a> {
    client: &'a Client,
    session: SessionId,
    patience: Patience,
    /// Sequence number of the last event that came.
    cursor: u64,
    /// The cursor when the connection was last made.
    before: u64,
    attempts: u32,
    /// Whether there ever was a connection: a host that is not there at all is not waited for.
    connected: bool,
    stream: Option<FrameStream>,
    resume_at: Option<Instant>,
}

/// Why a connection came to its end.
enum Broken {
    /// It is worth another try.
    Dropped(CliError),
    /// It is not.
    Final(CliError),
}

impl<'a> Feed<'a> {
    /// The feed of `session` from its beginning.
    pub fn new(client: &'a Client, session: SessionId, patience: Patience) -> Self {
        Self {
            client,
            session,
            patience,
            cursor: 0,
            before: 0,
            attempts: 0,
            connected: false,
            stream: None,
            resume_at: None,
        }
    }

    /// Only what comes after the event `seq`.
    pub fn after(mut self, seq: u64) -> Self {
        self.cursor = seq;
        self
    }

    /// Whose events these are.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The next signal; an error where there will be none.
    pub async fn next(&mut self) -> Result<Signal, CliError> {
        if let Some(moment) = self.resume_at {
            tokio::time::sleep_until(moment).await;
            self.resume_at = None;
        }
        loop {
            match self.step().await {
                Ok(Some(signal)) => return Ok(signal),
                Ok(None) => {}
                Err(broken) => return self.broken(broken).map(Signal::Outage),
            }
        }
    }

    /// Begins anew to try, after the session was given up.
    pub fn retry(&mut self) {
        self.attempts = 0;
    }

    async fn step(&mut self) -> Result<Option<Signal>, Broken> {
        let Some(stream) = &mut self.stream else {
            self.before = self.cursor;
            let stream = self.client.stream(&self.session.to_string(), self.cursor).await.map_err(worth_a_try)?;
            self.stream = Some(stream);
            self.connected = true;
            return Ok(Some(Signal::Connected));
        };
        let frame = stream.next().await.map_err(worth_a_try)?.ok_or(Broken::Dropped(CliError::StreamBroken))?;
        self.frame(frame)
    }

    fn frame(&mut self, frame: Frame) -> Result<Option<Signal>, Broken> {
        match frame.event.as_str() {
            "" | "message" => {
                let event: Event = serde_json::from_str(&frame.data).map_err(|error| {
                    Broken::Final(CliError::Answer { operation: OPERATION, why: error.to_string() })
                })?;
                if event.seq <= self.cursor {
                    return Ok(None);
                }
                if event.seq != self.cursor + 1 {
                    let why = format!("event {} came after {}", event.seq, self.cursor);
                    return Err(Broken::Dropped(CliError::Answer { operation: OPERATION, why }));
                }
                self.cursor = event.seq;
                Ok(Some(Signal::Event { event: Box::new(event), data: frame.data }))
            }
            // A kind of delta that a later host knows is no loss: its event follows.
            "delta" => Ok(serde_json::from_str(&frame.data).ok().map(Signal::Delta)),
            "caught_up" => Ok(Some(Signal::CaughtUp)),
            // A kind of frame that a later host knows.
            _ => Ok(None),
        }
    }

    fn broken(&mut self, broken: Broken) -> Result<Outage, CliError> {
        self.stream = None;
        let error = match broken {
            Broken::Dropped(error) if self.connected => error,
            Broken::Dropped(error) | Broken::Final(error) => return Err(error),
        };
        self.attempts = if self.cursor > self.before { 1 } else { self.attempts + 1 };
        let Patience { attempts: limit, first, longest } = self.patience;
        if self.attempts > limit {
            return Err(CliError::ConnectionLost { session: self.session, attempts: limit, source: Box::new(error) });
        }
        let pause = (first * 2_u32.saturating_pow(self.attempts - 1)).min(longest);
        self.resume_at = Some(Instant::now() + pause);
        Ok(Outage { why: chain(&error), pause, attempt: self.attempts, limit })
    }
}

/// A host that restarts is away for a moment; one that refuses will refuse again.
fn worth_a_try(error: CliError) -> Broken {
    match &error {
        CliError::Api(api) if api.code == ErrorCode::Overloaded || api.status >= 500 => Broken::Dropped(error),
        CliError::NotRunning { .. } | CliError::Transport { .. } | CliError::StreamBroken => Broken::Dropped(error),
        _ => Broken::Final(error),
    }
}
