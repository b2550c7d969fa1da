//! Runs the screen: brings it what happens, performs what it asks for.
//!
//! Owns the event loop and every deadline in it. Decides nothing: that is [`super::update`].

use std::time::Duration;

use crossterm::event::{Event as Terminal, EventStream};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use ostler_protocol::SessionId;
use ostler_protocol::event::Person;
use tokio::signal::unix::{Signal as Unix, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::screen::Screen;
use super::state::{Connection, Effect, Input, State};
use super::update::update;
use super::view::Theme;
use crate::cli::client::Client;
use crate::cli::feed::{Feed, Patience, Signal};
use crate::cli::output::Printer;
use crate::cli::{CliError, prompt, sessions};
use crate::telemetry::chain;

/// Signals of the host that may wait for the screen.
const QUEUE: usize = 256;
/// Time between two pictures, so that a long past does not have to be drawn event by event.
const PICTURE: Duration = Duration::from_millis(30);

type Acts<'a> = FuturesUnordered<BoxFuture<'a, Input>>;

/// Shows `session` on the terminal until the person leaves. `author` is who prompts, or why that is not known.
pub async fn attach(
    session: SessionId,
    author: Result<Person, String>,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let mut feed = Feed::new(client, session, Patience::default());
    // A host or a session that is not there is told in plain lines.
    let first = feed.next().await?;
    let (result, unsent, asked) = {
        let mut screen = Screen::enter(Theme { colour: printer.paint.enabled }).map_err(failed("put the screen up"))?;
        let size = screen.size().map_err(failed("ask for the size of the terminal"))?;
        let mut state = State::new(session, author, size);
        update(&mut state, Input::Signal(Box::new(first)));
        let result = drive(&mut state, &mut screen, feed, client).await;
        (result, state.unsent(), state.sending.is_some())
    };
    if let Some(text) = unsent {
        let known = if asked { "it is not known whether this was sent" } else { "this was not sent" };
        printer.note(&format!("{known}:\n{text}\n"));
    }
    result?;
    Err(CliError::Detached { session })
}

fn failed(operation: &'static str) -> impl Fn(std::io::Error) -> CliError {
    move |source| CliError::Terminal { operation, source }
}

async fn drive(state: &mut State, screen: &mut Screen, feed: Feed<'_>, client: &Client) -> Result<(), CliError> {
    let (sender, mut signals) = mpsc::channel(QUEUE);
    let retry = Notify::new();
    let pump = pump(feed, sender, &retry);
    tokio::pin!(pump);
    let mut terminal = EventStream::new();
    let mut endings = Endings::new()?;
    let mut acts = Acts::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut picture = Some(Instant::now());
    loop {
        let waiting = matches!(state.connection, Connection::Waiting { .. });
        let input = tokio::select! {
            biased;
            () = until(picture), if picture.is_some() => {
                screen.draw(state).map_err(failed("draw on the terminal"))?;
                picture = None;
                continue;
            }
            () = endings.next() => Input::Terminate,
            event = terminal.next() => match event {
                Some(event) => match from_terminal(event.map_err(failed("read from the terminal"))?) {
                    Some(input) => input,
                    None => continue,
                },
                // The terminal has gone.
                None => Input::Terminate,
            },
            Some(input) = acts.next(), if !acts.is_empty() => input,
            Some(input) = signals.recv() => input,
            () = &mut pump => continue,
            _ = second.tick(), if waiting => Input::Second,
        };
        if matches!(&input, Input::Signal(signal) if matches!(**signal, Signal::Outage(_))) {
            second.reset();
        }
        for effect in update(state, input) {
            match effect {
                Effect::Leave => return Ok(()),
                Effect::Retry => retry.notify_one(),
                effect => acts.push(perform(effect, state.session, client)),
            }
        }
        picture = picture.or_else(|| Some(Instant::now() + PICTURE));
    }
}

async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

/// Brings the feed to the screen; after the end of it, waits to be told to try again.
async fn pump(mut feed: Feed<'_>, sender: mpsc::Sender<Input>, retry: &Notify) {
    loop {
        let input = match feed.next().await {
            Ok(signal) => Input::Signal(Box::new(signal)),
            Err(error) => Input::Ended(chain(&error)),
        };
        let ended = matches!(input, Input::Ended(_));
        // The other end lives as long as the screen.
        if sender.send(input).await.is_err() {
            return std::future::pending().await;
        }
        if ended {
            retry.notified().await;
            feed.retry();
        }
    }
}

fn from_terminal(event: Terminal) -> Option<Input> {
    match event {
        Terminal::Key(key) => Some(Input::Key(key)),
        Terminal::Paste(text) => Some(Input::Paste(text)),
        Terminal::Resize(columns, rows) => Some(Input::Resize(columns.into(), rows.into())),
        Terminal::FocusGained | Terminal::FocusLost | Terminal::Mouse(_) => None,
    }
}

fn perform<'a>(effect: Effect, session: SessionId, client: &'a Client) -> BoxFuture<'a, Input> {
    Box::pin(async move {
        match effect {
            Effect::Send(text, author) => {
                let sent = prompt::submit(session, text, Some(author), client).await;
                Input::Sent(sent.map(drop).map_err(|error| explained(&error)))
            }
            _ => {
                let stopped = sessions::ask_to_stop(session, client).await;
                Input::Stopped(stopped.map(drop).map_err(|error| explained(&error)))
            }
        }
    })
}

/// The error and its hint in one line.
pub fn explained(error: &CliError) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", chain(error)),
        None => chain(error),
    }
}

/// The signals that tell the process to end.
struct Endings([Unix; 3]);

impl Endings {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(failed("listen to signals"));
        Ok(Self([listen(SignalKind::terminate())?, listen(SignalKind::hangup())?, listen(SignalKind::interrupt())?]))
    }

    async fn next(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
