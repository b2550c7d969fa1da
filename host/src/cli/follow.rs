//! Watching a session in lines until there is a reason to end.
//!
//! ```text
//!  feed ─► progress ─► view ─► reached? ─► end
//! ```
//!
//! Owns when to end, and what is printed of the feed. The feed itself is [`super::feed`].

use std::time::Duration;

use ostler_protocol::{Event, PromptId, SessionId};

use super::feed::{Feed, Signal};
use super::output::Printer;
use super::progress::Progress;
use super::transcript::Transcript;
use super::{CliError, exit, terminal};

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

/// Shows a feed. The result tells how the prompt ended that was waited for.
pub async fn follow(mut feed: Feed<'_>, until: Until, view: View, printer: &mut Printer) -> Result<(), CliError> {
    let session = feed.session();
    let mut watch = Watch { session, until, view, caught_up: false, progress: Progress::default() };
    let result = tokio::select! {
        biased;
        () = interrupted() => Err(CliError::Detached { session }),
        result = watch.run(&mut feed, printer) => result,
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
    caught_up: bool,
    progress: Progress,
}

impl Watch {
    async fn run(&mut self, feed: &mut Feed<'_>, printer: &mut Printer) -> Result<(), CliError> {
        loop {
            let signal = self.next(feed).await?;
            if let Some(result) = self.signal(signal, printer)? {
                return result;
            }
        }
    }

    async fn next(&self, feed: &mut Feed<'_>) -> Result<Signal, CliError> {
        if !self.progress.publishing() {
            return feed.next().await;
        }
        let late = |_| CliError::Turn {
            message: format!("publishing has not ended after {} min", PUBLISH_TIME.as_secs() / 60),
            exit: exit::HOST,
            session: self.session,
        };
        tokio::time::timeout(PUBLISH_TIME, feed.next()).await.map_err(late)?
    }

    /// Shows a signal; tells whether the end is reached, and how.
    fn signal(&mut self, signal: Signal, printer: &mut Printer) -> Result<Option<Result<(), CliError>>, CliError> {
        match signal {
            Signal::Connected => {}
            Signal::Event { event, data } => {
                self.show(&event, &data, printer)?;
                if let Some((prompt, ending)) = self.progress.note(&event.body)
                    && self.until == Until::Prompt(*prompt)
                {
                    return Ok(Some(ending.result(self.session)));
                }
            }
            Signal::Delta(delta) => {
                if let View::Text(transcript) = &mut self.view {
                    let text = transcript.delta(&delta);
                    printer.data(&text)?;
                }
            }
            Signal::CaughtUp => self.caught_up = true,
            Signal::Outage(outage) => {
                let pause = terminal::duration(u64::try_from(outage.pause.as_millis()).unwrap_or(u64::MAX));
                let (attempt, limit) = (outage.attempt, outage.limit);
                printer.warning(&format!("{}; trying again in {pause} ({attempt} of {limit})", outage.why));
            }
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
}
