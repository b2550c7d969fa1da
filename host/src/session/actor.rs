//! One task per session: the only writer of its log.
//!
//! ```text
//!  message ─► machine.step ─► append (durable) ─► publish head ─► answer callers ─► perform acts
//! ```
//!
//! When an append fails the actor ends without answering "yes" to anyone: nothing that is not on disk was ever shown.
//! The next caller starts it again from the log.

use std::sync::Arc;

use ostler_protocol::api::{PromptAccepted, SessionView};
use ostler_protocol::{Delta, ErrorCode, EventBody, SessionId, TurnId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::effects;
use super::error::SessionError;
use super::machine::MAX_QUEUE;
use super::registry::store_error;
use super::services::Services;
use super::state::{Act, Input, Prompt, State, Step, Workspace as Phase};
use crate::workspace::{Workspace, chain};

/// Messages that may wait for one actor.
const MAILBOX: usize = 256;

/// Pieces of text that a slow watcher may be behind.
const DELTAS: usize = 1024;

/// What an actor is told.
pub(super) enum Message {
    /// A person asks.
    Submit { prompt: Prompt, reply: oneshot::Sender<Result<PromptAccepted, SessionError>> },
    /// A person wants the turn to stop; answered when it has.
    Stop { reply: oneshot::Sender<SessionView> },
    /// Something that an act brought about; answered when it is durable.
    Input { input: Input, durable: Option<oneshot::Sender<()>> },
    /// An act brought a workspace.
    Workspace { workspace: Arc<Workspace>, took_ms: u64, restored: bool },
    /// An event without consequences, such as a step of publishing; answered when it is durable.
    Note { body: EventBody, durable: oneshot::Sender<()> },
    /// What clients see.
    View { reply: oneshot::Sender<SessionView> },
    /// The living workspace, if there is one.
    Borrow { reply: oneshot::Sender<Option<Arc<Workspace>>> },
    /// The sandbox ended by itself.
    Died { why: String },
    /// The host stops: leave the session as it is, for the next start to go on.
    Quit,
}

/// How to reach an actor.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) mailbox: mpsc::Sender<Message>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) deltas: broadcast::Sender<Delta>,
}

/// The task of one session.
pub(super) struct Actor {
    pub(super) session: SessionId,
    pub(super) services: Arc<Services>,
    pub(super) state: State,
    pub(super) created_at_ms: u64,
    pub(super) updated_at_ms: u64,
    head: u64,
    head_sender: watch::Sender<u64>,
    pub(super) deltas: broadcast::Sender<Delta>,
    pub(super) mailbox: mpsc::Sender<Message>,
    /// Cancelled when the turn is stopped; a new one for each turn.
    pub(super) cancel: CancellationToken,
    pub(super) workspace: Option<Arc<Workspace>>,
    /// The hooks that the turn under way began with.
    pub(super) generation: crate::plugins::Generation,
    /// Who waits for which turn to end.
    stop_waiters: Vec<(Option<TurnId>, oneshot::Sender<SessionView>)>,
}

/// The append failed; the actor must end.
struct Broken(crate::store::StoreError);

impl Actor {
    /// Starts the task over a state that was folded from the log up to `head`.
    pub(super) fn start(
        session: SessionId,
        services: Arc<Services>,
        state: State,
        head: u64,
        created_at_ms: u64,
        updated_at_ms: u64,
        workspace: Option<Arc<Workspace>>,
    ) -> Handle {
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let (head_sender, head_receiver) = watch::channel(head);
        let (deltas, _) = broadcast::channel(DELTAS);
        let handle = Handle { mailbox: mailbox.clone(), head: head_receiver, deltas: deltas.clone() };
        let generation = services.plugins.generation();
        let actor = Self {
            session,
            services,
            state,
            created_at_ms,
            updated_at_ms,
            head,
            head_sender,
            deltas,
            mailbox,
            cancel: CancellationToken::new(),
            workspace,
            generation,
            stop_waiters: Vec::new(),
        };
        tokio::spawn(actor.run(messages));
        handle
    }

    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        if let Some(workspace) = &self.workspace {
            tokio::spawn(effects::follow_refusals(workspace.refusals(), self.mailbox.clone()));
        }
        let phase = if self.workspace.is_some() { Phase::Ready } else { Phase::None };
        let mut next = Some(Message::Input { input: Input::Recovered { workspace: phase }, durable: None });
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => match messages.recv().await {
                    Some(message) => message,
                    None => return,
                },
            };
            if matches!(message, Message::Quit) {
                return;
            }
            if let Err(Broken(error)) = self.handle(message).await {
                tracing::error!(
                    session = %self.session,
                    error = &error as &dyn std::error::Error,
                    "the session's log cannot be written; the session pauses until the next request"
                );
                self.cancel.cancel();
                // Nobody holds this sandbox any more. The mailbox is still open, so no second actor can start before it
                // has ended; its files are kept for the next one.
                if let Err(error) = self.services.workspaces.end(self.session).await {
                    tracing::error!(session = %self.session, error = %chain(&error), "its sandbox could not be ended");
                }
                return;
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Broken> {
        match message {
            Message::Submit { prompt, reply } => return self.submit(prompt, reply).await,
            Message::Stop { reply } => {
                self.stop_waiters.push((self.state.turn.as_ref().map(|turn| turn.id), reply));
                self.input(Input::Stop).await?;
            }
            Message::Input { input, durable } => {
                self.input(input).await?;
                if let Some(durable) = durable {
                    let _ = durable.send(());
                }
            }
            Message::Workspace { workspace, took_ms, restored } => {
                tokio::spawn(effects::follow_refusals(workspace.refusals(), self.mailbox.clone()));
                self.workspace = Some(workspace);
                self.input(Input::WorkspaceReady { took_ms, restored }).await?;
            }
            Message::Note { body, durable } => {
                self.append(vec![body]).await?;
                let _ = durable.send(());
            }
            Message::View { reply } => {
                let _ = reply.send(self.view());
            }
            Message::Borrow { reply } => {
                let _ = reply.send(self.workspace.clone());
            }
            Message::Died { why } => {
                self.workspace = None;
                self.input(Input::WorkspaceLost { code: ErrorCode::SandboxFailed, reason: why }).await?;
            }
            Message::Quit => {}
        }
        self.answer_stops();
        Ok(())
    }

    async fn submit(
        &mut self,
        prompt: Prompt,
        reply: oneshot::Sender<Result<PromptAccepted, SessionError>>,
    ) -> Result<(), Broken> {
        if self.state.queue.len() >= MAX_QUEUE {
            let message = format!("{MAX_QUEUE} prompts wait in this session already");
            let error =
                SessionError::new(ErrorCode::Overloaded, message).with_hint("wait for a turn to end, or stop it");
            let _ = reply.send(Err(error));
            return Ok(());
        }
        let id = prompt.id;
        // The prompt is the first event of its step.
        let seq = self.head + 1;
        let step = self.state.step(Input::Prompt(prompt));
        match self.commit(step).await {
            Ok(()) => {
                let _ = reply.send(Ok(PromptAccepted { prompt: id, seq }));
                Ok(())
            }
            Err(Broken(error)) => {
                let code = error.code();
                let text = "the prompt could not be kept; it was not accepted";
                let _ = reply.send(Err(SessionError::new(code, text)));
                Err(Broken(error))
            }
        }
    }

    async fn input(&mut self, input: Input) -> Result<(), Broken> {
        if matches!(input, Input::WorkspaceLost { .. }) {
            self.workspace = None;
        }
        let step = self.state.step(input);
        self.commit(step).await
    }

    async fn commit(&mut self, step: Step) -> Result<(), Broken> {
        let starts = step.append.iter().any(|body| matches!(body, EventBody::TurnStarted { .. }));
        self.append(step.append).await?;
        // A step may end one turn and begin the next: the cancellation is the old one's.
        if step.acts.contains(&Act::Cancel) {
            self.cancel.cancel();
        }
        if starts {
            self.cancel = CancellationToken::new();
            self.generation = self.services.plugins.generation();
        }
        for act in step.acts {
            if act != Act::Cancel {
                effects::spawn(self, act);
            }
        }
        Ok(())
    }

    async fn append(&mut self, bodies: Vec<EventBody>) -> Result<(), Broken> {
        if bodies.is_empty() {
            return Ok(());
        }
        let now = self.services.clock.now_ms();
        let events = self.services.logs.append(self.session, self.head, now, bodies).await.map_err(Broken)?;
        self.updated_at_ms = now;
        if let Some(last) = events.last() {
            self.head = last.seq;
            let _ = self.head_sender.send_replace(self.head);
        }
        // The index is for lists and is rebuilt from the logs; it never gates what the log already holds.
        if let Err(error) = self.services.index.put_session(self.view()).await {
            tracing::warn!(session = %self.session, error = &error as &dyn std::error::Error, "the index is behind");
        }
        Ok(())
    }

    fn answer_stops(&mut self) {
        let turn = self.state.turn.as_ref().map(|turn| turn.id);
        let view = self.view();
        let (waiting, ended): (Vec<_>, Vec<_>) =
            self.stop_waiters.drain(..).partition(|(stopped, _)| stopped.is_some() && *stopped == turn);
        self.stop_waiters = waiting;
        for (_, waiter) in ended {
            let _ = waiter.send(view.clone());
        }
    }

    /// What clients see.
    pub(super) fn view(&self) -> SessionView {
        view(self.session, &self.state, self.head, self.created_at_ms, self.updated_at_ms)
    }
}

/// What clients see of a state.
pub(super) fn view(
    session: SessionId,
    state: &State,
    head: u64,
    created_at_ms: u64,
    updated_at_ms: u64,
) -> SessionView {
    let nobody = || ostler_protocol::event::Person { name: String::new(), email: String::new() };
    let identity = state.session.as_ref();
    let text = |field: fn(&super::state::Identity) -> &String| identity.map(field).cloned().unwrap_or_default();
    SessionView {
        id: session,
        repository: text(|identity| &identity.repository),
        base_branch: text(|identity| &identity.base_branch),
        branch: text(|identity| &identity.branch),
        author: identity.map_or_else(nobody, |identity| identity.author.clone()),
        status: state.status(),
        model: text(|identity| &identity.model),
        title: state.title.clone(),
        head_seq: head,
        pull_request: state.pull_request,
        created_at_ms,
        updated_at_ms,
    }
}

/// Folds a whole log; `None` for one without its first event.
pub(super) async fn fold(services: &Services, session: SessionId) -> Result<Option<Folded>, SessionError> {
    const PAGE: usize = 500;
    let mut folded = Folded::default();
    loop {
        let events = services.logs.read(session, folded.head, PAGE).await.map_err(store_error)?;
        for event in &events {
            if folded.head == 0 {
                folded.created_at_ms = event.at_ms;
            }
            folded.state.apply(&event.body);
            folded.head = event.seq;
            folded.updated_at_ms = event.at_ms;
        }
        if events.len() < PAGE {
            return Ok(folded.state.session.is_some().then_some(folded));
        }
    }
}

/// A session as its log tells it.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) state: State,
    pub(super) head: u64,
    pub(super) created_at_ms: u64,
    pub(super) updated_at_ms: u64,
}
