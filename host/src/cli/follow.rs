//! Watching a session until there is a reason to end: the stream, its resumption, and what is shown of it.
//!
//! ```text
//!  connect (Last-Event-ID) ─► frames ─► view ─► reached? ─► end
//!      ▲                        │ dropped, silent, host gone
//!      └── notice, pause ◄──────┘        at most `Patience::attempts` times without a new event in between
//! ```
//!
//! Every event is shown once, however often the connection drops.

use std::time::Duration;

use ostler_protocol::{Delta, ErrorCode, Event, PromptId, SessionId};

use super::client::{Client, FrameStream};
use super::output::Printer;
use super::progress::Progress;
use super::sse::Frame;
use super::transcript::Transcript;
use super::{CliError, exit, terminal};
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

/// Time for a done turn to be published. The host has deadlines of its own below this.
const PUBLISH_TIME: Duration = Duration::from_secs(600);

/// When to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// This prompt has ended and its work is published.
    Prompt(PromptId),
    /// Everything that happened before was shown and nothing is left to do.
    Idle,
    /// Only by Ctrl-C.
    Interrupted,
}

/// How events are shown.
pub enum View {
    /// As they came, one JSON object per line.
    Json,
    /// For people.
    Text(Box<Transcript>),
}

impl View {
    /// The view that the user asked for.
    pub fn of(json: bool, printer: &Printer) -> Self {
        if json { Self::Json } else { Self::Text(Box::new(Transcript::new(printer.paint, printer.live))) }
    }
}

/// Watches `session` from its beginning. The result tells how the prompt ended that was waited for.
pub async fn follow(
    client: &Client,
    session: SessionId,
    until: Until,
    view: View,
    patience: Patience,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let progress = Progress::default();
    let mut watch = Watch { session, until, view, patience, cursor: 0, caught_up: false, progress };
    let result = tokio::select! {
        biased;
        () = interrupted() => Err(CliError::Detached { session }),
        result = watch.run(client, printer) => result,
    };
    if let View::Text(transcript) = &mut watch.view {
        printer.data(&transcript.close())?;
    }
    result
}

/// Ends at Ctrl-C. Where that cannot be caught it ends the process, which is as good.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

struct Watch {
    session: SessionId,
    until: Until,
    view: View,
    patience: Patience,
    cursor: u64,
    caught_up: bool,
    progress: Progress,
}

/// Why one connection came to its end.
enum Broken {
    /// It is worth another try.
    Dropped(CliError),
    /// It is not.
    Final(CliError),
}

impl Watch {
    async fn run(&mut self, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
        let mut attempts = 0;
        let mut connected = false;
        loop {
            let before = self.cursor;
            let error = match self.connection(client, printer, &mut connected).await {
                Ok(()) => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Dropped(error)) if !connected => return Err(error),
                Err(Broken::Dropped(error)) => error,
            };
            attempts = if self.cursor > before { 1 } else { attempts + 1 };
            let Patience { attempts: limit, first, longest } = self.patience;
            if attempts > limit {
                return Err(CliError::ConnectionLost {
                    session: self.session,
                    attempts: limit,
                    source: Box::new(error),
                });
            }
            let pause = (first * 2_u32.saturating_pow(attempts - 1)).min(longest);
            let shown = terminal::duration(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            printer.warning(&format!("{}; trying again in {shown} ({attempts} of {limit})", chain(&error)));
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, until the end is reached or it breaks.
    async fn connection(&mut self, client: &Client, printer: &mut Printer, connected: &mut bool) -> Result<(), Broken> {
        let mut stream = client.stream(&self.session.to_string(), self.cursor).await.map_err(worth_a_try)?;
        *connected = true;
        loop {
            let frame = self.next(&mut stream).await?;
            let reached = self.frame(frame, printer)?;
            if let Some(result) = reached {
                return result.map_err(Broken::Final);
            }
        }
    }

    async fn next(&self, stream: &mut FrameStream) -> Result<Frame, Broken> {
        let frame = if self.progress.publishing() {
            let late = |_| {
                Broken::Final(CliError::Turn {
                    message: format!("publishing has not ended after {} min", PUBLISH_TIME.as_secs() / 60),
                    exit: exit::HOST,
                    session: self.session,
                })
            };
            tokio::time::timeout(PUBLISH_TIME, stream.next()).await.map_err(late)?
        } else {
            stream.next().await
        };
        frame.map_err(worth_a_try)?.ok_or(Broken::Dropped(CliError::StreamBroken))
    }

    /// Shows a frame; tells whether the end is reached.
    fn frame(&mut self, frame: Frame, printer: &mut Printer) -> Result<Option<Result<(), CliError>>, Broken> {
        match frame.event.as_str() {
            "" | "message" => {
                let event: Event = serde_json::from_str(&frame.data).map_err(|error| {
                    Broken::Final(CliError::Answer { operation: OPERATION, why: error.to_string() })
                })?;
                if event.seq <= self.cursor {
                    return Ok(None);
                }
                if event.seq != self.cursor + 1 {
                    return Err(self.dropped(&format!("event {} came after {}", event.seq, self.cursor)));
                }
                self.cursor = event.seq;
                self.show(&event, &frame.data, printer).map_err(Broken::Final)?;
                if let Some((prompt, ending)) = self.progress.note(&event.body)
                    && self.until == Until::Prompt(*prompt)
                {
                    return Ok(Some(ending.result(self.session)));
                }
            }
            "delta" => {
                // A kind of delta that a later host knows is no loss: its event follows.
                if let View::Text(transcript) = &mut self.view
                    && let Ok(delta) = serde_json::from_str::<Delta>(&frame.data)
                {
                    let text = transcript.delta(&delta);
                    printer.data(&text).map_err(Broken::Final)?;
                }
            }
            "caught_up" => self.caught_up = true,
            // A kind of frame that a later host knows.
            _ => {}
        }
        if self.until == Until::Idle && self.caught_up && self.progress.idle() {
            return Ok(Some(self.progress.last().map_or(Ok(()), |ending| ending.result(self.session))));
        }
        Ok(None)
    }

    fn show(&mut self, event: &Event, data: &str, printer: &mut Printer) -> Result<(), CliError> {
        match &mut self.view {
            // As it came: a later host may say more than we know.
            View::Json => printer.line(data),
            View::Text(transcript) => {
                let text = transcript.event(event);
                printer.data(&text)
            }
        }
    }

    fn dropped(&self, why: &str) -> Broken {
        Broken::Dropped(CliError::Answer { operation: OPERATION, why: why.to_owned() })
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
