//! `GET /v1/sessions/{session}/terminals/{terminal}/attach`: a terminal over a WebSocket.
//!
//! | frame | from the viewer | to the viewer |
//! |---|---|---|
//! | binary | what is typed | what is shown; the first frame is what was shown before |
//! | text | `{"type":"resize","rows":40,"columns":120}` | `{"type":"exited","exit_status":0}`, `{"type":"error","message":"…"}` |
//!
//! A viewer that leaves takes nothing with it: the terminal goes on. Several may look at one; all may type. One that does not
//! take what is shown loses its view, never the others theirs.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use ostler_protocol::processes::{FromTerminal, ToTerminal, Window};
use ostler_protocol::{ErrorCode, SessionId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use super::extract::{PathText, parse};
use super::{ApiFailure, ApiState};
use crate::workspace::TerminalView;

/// The route.
pub(super) const ATTACH: &str = "/v1/sessions/{session}/terminals/{terminal}/attach";

/// Largest frame of a viewer: a large paste.
const MAX_FRAME: usize = 256 * 1024;

/// Time between two pings, and the longest that a viewer may take for anything.
const PING: Duration = Duration::from_secs(20);
const VIEWER_TIME: Duration = Duration::from_secs(30);

/// Looks at a terminal.
pub(super) async fn attach(
    State(state): State<ApiState>,
    PathText((session, terminal)): PathText<(String, String)>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let session: SessionId = parse(&session)?;
    let upgrade = upgrade.map_err(|error| {
        ApiFailure::bad_request(format!("this is a WebSocket: {error}")).with_hint("`ostler shell` speaks it")
    })?;
    let place = state.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiFailure::new(ErrorCode::Overloaded, "too many streams are open on this host"))?;
    let view = state.processes.view_terminal(session, &terminal).await?;
    let upgrade = upgrade.max_message_size(MAX_FRAME).max_frame_size(MAX_FRAME);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _place = place;
        let mut viewer = Viewer { socket, state, session, terminal, heard: true };
        // How it ended is nobody's business: the terminal goes on, or the viewer was told.
        let _ = viewer.serve(view).await;
    }))
}

struct Viewer {
    socket: WebSocket,
    state: ApiState,
    session: SessionId,
    terminal: String,
    /// Whether anything came since the last ping.
    heard: bool,
}

/// The viewer is gone.
struct Gone;

impl Viewer {
    async fn serve(&mut self, mut view: TerminalView) -> Result<(), Gone> {
        self.send(Message::Binary(std::mem::take(&mut view.scrollback))).await?;
        let mut ping = tokio::time::interval(PING);
        let stopping = self.state.stopping.clone();
        loop {
            tokio::select! {
                shown = view.output.recv() => match shown {
                    Ok(bytes) => self.send(Message::Binary(bytes)).await?,
                    Err(RecvError::Closed) => return self.exited().await,
                    Err(RecvError::Lagged(_)) => return self.end("this view was too slow; attach again").await,
                },
                said = self.socket.recv() => {
                    self.heard = true;
                    match said {
                        Some(Ok(Message::Binary(bytes))) => self.typed(&view, bytes).await?,
                        Some(Ok(Message::Text(text))) => self.asked(&text).await?,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                    }
                }
                _ = ping.tick() => {
                    if !std::mem::take(&mut self.heard) {
                        return Err(Gone);
                    }
                    self.send(Message::Ping(Bytes::new())).await?;
                }
                () = stopping.cancelled() => return self.end("the host is stopping; the terminal goes on").await,
            }
        }
    }

    async fn typed(&mut self, view: &TerminalView, bytes: Bytes) -> Result<(), Gone> {
        match view.typed.try_send(bytes) {
            // The next look at the output tells that it has ended.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => self.tell("the program does not read; what was typed is lost").await,
        }
    }

    async fn asked(&mut self, text: &str) -> Result<(), Gone> {
        let ToTerminal::Resize { rows, columns } = match serde_json::from_str(text) {
            Ok(asked) => asked,
            Err(error) => return self.tell(&format!("this frame cannot be understood: {error}")).await,
        };
        let resized =
            self.state.processes.resize_terminal(self.session, &self.terminal, Window { rows, columns }).await;
        match resized {
            Ok(()) => Ok(()),
            Err(error) => self.tell(&error.to_string()).await,
        }
    }

    async fn exited(&mut self) -> Result<(), Gone> {
        let found = self.state.processes.terminals(self.session).await;
        let mut terminals = found.map(|list| list.terminals).unwrap_or_default().into_iter();
        let found = terminals.find(|terminal| terminal.name == self.terminal);
        match found {
            // Somebody else took the stream over, or the sandbox broke it: the shell lives.
            Some(terminal) if terminal.exit_status.is_none() => self.end("the view ended; attach again").await,
            found => {
                let exit_status = found.and_then(|terminal| terminal.exit_status);
                self.say(&FromTerminal::Exited { exit_status }).await?;
                self.send(Message::Close(None)).await
            }
        }
    }

    async fn end(&mut self, why: &str) -> Result<(), Gone> {
        self.tell(why).await?;
        self.send(Message::Close(None)).await
    }

    async fn tell(&mut self, message: &str) -> Result<(), Gone> {
        self.say(&FromTerminal::Error { message: message.to_owned() }).await
    }

    async fn say(&mut self, words: &FromTerminal) -> Result<(), Gone> {
        let text = serde_json::to_string(words).map_err(|_| Gone)?;
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(VIEWER_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}
