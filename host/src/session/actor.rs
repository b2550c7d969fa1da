//! One task per session: the only writer of its log.
//!
//! ```text
//!  message ─► machine.step ─► append (durable) ─► publish head ─► answer callers ─► perform acts
//!                                  │ fails
//!                                  ▼
//!                  asleep: acts ended, sandbox ended, state forgotten ──asked, or in a while──► folded from the log again
//! ```
//!
//! When an append fails nobody is answered "yes": nothing that is not on disk was ever shown. The session then sleeps. A
//! reader gets what the log says; whoever wants something done wakes it, or is told why that is not possible. A turn
//! that was under way is gone on with as soon as the log can be written again.
//! The actor itself lives as long as the host, so that nobody ever talks to one that is about to end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ostler_protocol::api::{PromptAccepted, SessionView};
use ostler_protocol::{CallId, Delta, ErrorCode, EventBody, SessionId, TurnId};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::error::{SessionError, store_error, unknown};
use super::job::{self, Job};
use super::keys;
use super::log::{Folded, fold, view};
use super::machine::MAX_QUEUE;
use super::mailbox::{Death, Handle, Message, Reply};
use super::measure::Measure;
use super::services::Services;
use super::state::{Act, Input, Prompt, State, Step, Workspace as Phase};
use super::{effects, egress, supervision};
use crate::agent::tools::Lost;
use crate::door::Account;
use crate::workspace::{Known, Workspace, chain};

/// Messages that may wait for one actor.
const MAILBOX: usize = 256;

/// Pieces of text that a slow watcher may be behind.
const DELTAS: usize = 1024;

/// Longest that services may take to end when the host stops.
const SERVICES_END: Duration = Duration::from_secs(15);

/// Time after which a session that sleeps looks whether it can go on.
const NAP: Duration = Duration::from_secs(5);

/// The task of one session.
pub(super) struct Actor {
    session: SessionId,
    services: Arc<Services>,
    state: State,
    created_at_ms: u64,
    updated_at_ms: u64,
    head: u64,
    head_sender: watch::Sender<u64>,
    deltas: broadcast::Sender<Delta>,
    mailbox: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    /// What people asked before the session fell asleep; answered first.
    asked: VecDeque<Message>,
    /// Acts under way; what they do ends with them.
    acts: JoinSet<()>,
    /// The supervision of the sandbox's services; ends with it.
    supervision: JoinSet<()>,
    /// Cancelled when the turn is stopped; a new one for each turn.
    cancel: CancellationToken,
    /// What the session has used of the network, which may be more than the log says yet.
    account: Arc<Account>,
    workspace: Option<Arc<Workspace>>,
    /// The last end of a sandbox that was not ours: it may be that of one that is still on its way to us.
    unclaimed_death: Option<Death>,
    /// The hooks that the turn under way began with.
    generation: crate::plugins::Generation,
    /// Who waits for which turn to end.
    stop_waiters: Vec<(Option<TurnId>, Reply<SessionView>)>,
    /// What is counted of it.
    measure: Measure,
    wakefulness: Wakefulness,
    /// When it looks again whether it can go on.
    wake_at: Instant,
}

/// Whether the state in memory is what the log says, and the acts that follow from it are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wakefulness {
    /// It is, and they are.
    Awake,
    /// The state was folded, nothing was done about it yet.
    Folded,
    /// An append failed: the state must be folded again.
    Forgotten,
}

/// Why the actor cannot go on: the log cannot be written, or read.
struct Broken(SessionError);

impl Actor {
    /// Starts the task over what was folded from the log.
    pub(super) fn start(
        session: SessionId,
        services: Arc<Services>,
        folded: Folded,
        account: Arc<Account>,
        workspace: Option<Arc<Workspace>>,
    ) -> Handle {
        let Folded { state, head, created_at_ms, updated_at_ms } = folded;
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let (head_sender, head_receiver) = watch::channel(head);
        let (deltas, _) = broadcast::channel(DELTAS);
        let handle = Handle { mailbox: mailbox.clone(), head: head_receiver, deltas: deltas.clone() };
        let generation = services.plugins.generation();
        let measure = Measure::new(services.models.default_name());
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
            messages,
            asked: VecDeque::new(),
            acts: JoinSet::new(),
            supervision: JoinSet::new(),
            cancel: CancellationToken::new(),
            account,
            workspace,
            unclaimed_death: None,
            generation,
            stop_waiters: Vec::new(),
            measure,
            wakefulness: Wakefulness::Folded,
            wake_at: Instant::now() + NAP,
        };
        tokio::spawn(actor.run().instrument(tracing::info_span!(parent: None, "session", id = %session)));
        handle
    }

    async fn run(mut self) {
        if let Some(workspace) = &self.workspace {
            self.follow(workspace);
        }
        if let Err(broken) = self.wake().await {
            tracing::error!(session = %self.session, error = %chain(&broken.0), "the session cannot go on yet");
            self.fall_asleep(&broken).await;
        }
        while let Some(message) = self.next().await {
            if matches!(message, Message::Quit) {
                return self.quit().await;
            }
            if let Err(broken) = self.handle(message).await {
                self.fall_asleep(&broken).await;
            }
        }
    }

    /// Gives the services their time to end well, because the sandbox ends with the host. Nobody takes events any more.
    async fn quit(mut self) {
        // Nobody takes what they would report.
        self.cancel.cancel();
        self.acts.shutdown().await;
        if let Some(workspace) = self.workspace.take() {
            tokio::select! {
                () = workspace.end_services(SERVICES_END) => {}
                () = async { while self.messages.recv().await.is_some() {} } => {}
            }
        }
        self.close_account().await;
    }

    /// Looks after the services of the sandbox that there is now.
    fn supervise(&mut self) {
        let (Some(workspace), Some(identity)) = (self.workspace.clone(), &self.state.session) else { return };
        let known = Known {
            services: self.state.beside.services.clone(),
            ended: self.state.beside.ended.clone(),
            author: identity.author.clone(),
        };
        let Some(job) = self.job() else { return };
        self.supervision = JoinSet::new();
        self.supervision.spawn(supervision::follow(workspace, known, job));
    }

    /// The next message, or the time to try again; `None` when nobody can send any more.
    async fn next(&mut self) -> Option<Message> {
        if let Some(asked) = self.asked.pop_front() {
            return Some(asked);
        }
        if self.wakefulness == Wakefulness::Awake {
            return self.messages.recv().await;
        }
        // A time, not a span: who only looks at the session must not keep it asleep.
        let woken = tokio::time::timeout_at(self.wake_at, self.messages.recv()).await;
        woken.unwrap_or_else(|_| {
            self.wake_at = Instant::now() + NAP;
            Some(Message::Wake)
        })
    }

    /// Makes the state in memory what the log says.
    async fn remember(&mut self) -> Result<(), Broken> {
        if self.wakefulness == Wakefulness::Forgotten {
            let folded = fold(&self.services, self.session).await.map_err(Broken)?;
            let Folded { state, head, updated_at_ms, .. } = folded.ok_or_else(|| Broken(unknown(self.session)))?;
            (self.state, self.head, self.updated_at_ms) = (state, head, updated_at_ms);
            self.publish_head();
            self.wakefulness = Wakefulness::Folded;
        }
        Ok(())
    }

    /// Goes on with what the log says is under way.
    async fn wake(&mut self) -> Result<(), Broken> {
        self.remember().await?;
        if self.wakefulness == Wakefulness::Folded {
            let workspace = if self.workspace.is_some() { Phase::Ready } else { Phase::None };
            // Where this fails nothing was begun, and the state is one that is on no disk: the caller lets it sleep.
            if workspace == Phase::Ready {
                self.input(Input::ServicesBegun).await?;
            }
            self.input(Input::Recovered { workspace }).await?;
            self.wakefulness = Wakefulness::Awake;
            self.supervise();
        }
        Ok(())
    }

    /// Ends everything that is under way, keeping the workspace's files, and forgets what is not on the disk.
    async fn fall_asleep(&mut self, broken: &Broken) {
        let before = std::mem::replace(&mut self.wakefulness, Wakefulness::Forgotten);
        self.wake_at = Instant::now() + NAP;
        if before != Wakefulness::Awake {
            tracing::debug!(session = %self.session, error = %chain(&broken.0), "the session sleeps on");
            return;
        }
        tracing::error!(
            session = %self.session,
            error = %chain(&broken.0),
            "the session's log cannot be written; the session sleeps"
        );
        self.cancel.cancel();
        self.cancel = CancellationToken::new();
        self.acts.shutdown().await;
        self.supervision = JoinSet::new();
        self.discard_reports();
        self.measure = Measure::new(self.services.models.default_name());
        self.workspace = None;
        for (_, waiter) in self.stop_waiters.drain(..) {
            // Everything of the turn was ended just now; that the log does not say so yet is what failed.
            let _ = waiter.send(Err(SessionError::new(broken.0.public.code, broken.0.public.message.clone())));
        }
        if let Err(error) = self.services.workspaces.end(self.session).await {
            tracing::error!(session = %self.session, error = %chain(&error), "its sandbox could not be ended");
        }
    }

    /// Drops what acts of the forgotten state have reported, and keeps what people asked.
    fn discard_reports(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Input(_) | Message::Workspace { .. } | Message::Note { .. } | Message::Died(_) => {}
                asked => self.asked.push_back(asked),
            }
        }
    }

    /// Puts down what has passed and is not in the log yet, so that the next host goes on from there.
    async fn close_account(&mut self) {
        let untold = egress::untold(self.account.passed(), self.state.network.passed);
        if self.wakefulness == Wakefulness::Awake
            && let Err(Broken(error)) = self.append(untold.into_iter().collect()).await
        {
            tracing::error!(session = %self.session, error = %chain(&error), "what passed last is not in the log");
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Broken> {
        match message {
            Message::Submit { prompt, reply } => return self.submit(prompt, reply).await,
            Message::Stop { reply } => return self.stop(reply).await,
            Message::View { reply } => {
                // Read-only: a full disk must not keep anybody from seeing what there is.
                let seen = self.remember().await.map(|()| self.view()).map_err(|Broken(error)| error);
                let _ = reply.send(seen);
                return Ok(());
            }
            Message::Borrow { reply } => {
                let _ = reply.send(Ok(self.workspace.clone()));
                return Ok(());
            }
            Message::Wake => return self.wake().await,
            // A late report of acts that were ended.
            _ if self.wakefulness != Wakefulness::Awake => return Ok(()),
            Message::Input(input) => self.input(input).await?,
            Message::Workspace { workspace, took_ms, restored, cloned } => {
                self.follow(&workspace);
                let instance = workspace.instance();
                self.workspace = Some(workspace);
                self.input(Input::ServicesBegun).await?;
                self.input(Input::WorkspaceReady { took_ms, restored, cloned }).await?;
                self.supervise();
                if let Some(death) = self.unclaimed_death.take_if(|death| death.instance == instance) {
                    self.died(death).await?;
                }
            }
            Message::Note { body, durable } => {
                self.state.apply(&body);
                if let Err(broken) = self.append(vec![body]).await {
                    return refuse(durable, broken);
                }
                let _ = durable.send(Ok(()));
            }
            Message::Died(death) => self.died(death).await?,
            Message::Quit => {}
        }
        self.answer_stops();
        Ok(())
    }

    /// What a workspace does by itself comes as messages.
    fn follow(&self, workspace: &Arc<Workspace>) {
        tokio::spawn(egress::follow(workspace.network(), self.mailbox.clone(), self.state.network));
        let services = Arc::clone(&self.services);
        tokio::spawn(job::watch(Arc::downgrade(workspace), services, self.mailbox.clone()));
    }

    async fn died(&mut self, death: Death) -> Result<(), Broken> {
        // News of an earlier sandbox must not hit the one that came after it.
        if self.workspace.as_ref().is_none_or(|workspace| workspace.instance() != death.instance) {
            self.unclaimed_death = Some(death);
            return Ok(());
        }
        let Lost { why: reason, cut_off } = death.lost;
        self.input(Input::WorkspaceLost { code: ErrorCode::SandboxFailed, reason, cut_off }).await
    }

    async fn submit(&mut self, prompt: Prompt, reply: Reply<PromptAccepted>) -> Result<(), Broken> {
        if let Some(request) = &prompt.request {
            if let Err(broken) = self.remember().await {
                return refuse(reply, broken);
            }
            if let Some(keyed) = self.state.keyed(&request.key) {
                let accepted = keys::same(&keyed.request, request).map(|()| keyed.accepted.clone());
                let _ = reply.send(accepted);
                return Ok(());
            }
        }
        if let Err(broken) = self.wake().await {
            return refuse(reply, broken);
        }
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
            Err(broken) => refuse(reply, broken),
        }
    }

    async fn stop(&mut self, reply: Reply<SessionView>) -> Result<(), Broken> {
        if let Err(broken) = self.wake().await {
            return refuse(reply, broken);
        }
        self.stop_waiters.push((self.state.turn.as_ref().map(|turn| turn.id), reply));
        self.input(Input::Stop).await?;
        self.answer_stops();
        Ok(())
    }

    async fn input(&mut self, input: Input) -> Result<(), Broken> {
        if matches!(input, Input::WorkspaceLost { .. }) {
            self.workspace = None;
            self.supervision = JoinSet::new();
        }
        let step = self.state.step(input);
        self.commit(step).await
    }

    async fn commit(&mut self, step: Step) -> Result<(), Broken> {
        let starts = step.append.iter().any(|body| matches!(body, EventBody::TurnStarted { .. }));
        let ran = |body: &EventBody| match body {
            EventBody::ToolFinished { call, exit_status: Some(_), .. } => Some(*call),
            _ => None,
        };
        let ended: Vec<CallId> = step.append.iter().filter_map(ran).collect();
        self.append(step.append).await?;
        // Only now may the sandbox forget them: until here it was the one that knew how they ended.
        if let Some(workspace) = self.workspace.clone().filter(|_| !ended.is_empty()) {
            self.acts.spawn(async move { workspace.forget(ended).await });
        }
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
                self.spawn(act);
            }
        }
        Ok(())
    }

    /// What a task of an act holds.
    fn job(&self) -> Option<Job> {
        let identity = self.state.session.clone()?;
        let author = self.state.turn.as_ref().map_or_else(|| identity.author.clone(), |turn| turn.author.clone());
        Some(Job {
            session: self.session,
            services: Arc::clone(&self.services),
            identity,
            author,
            generation: self.generation.clone(),
            cancel: self.cancel.clone(),
            workspace: self.workspace.clone(),
            had_workspace: self.state.had_workspace,
            account: Arc::clone(&self.account),
            deltas: self.deltas.clone(),
            mailbox: self.mailbox.clone(),
        })
    }

    fn spawn(&mut self, act: Act) {
        let Some(job) = self.job() else { return };
        // What ended is collected here: the set never holds more than what is under way.
        while self.acts.try_join_next().is_some() {}
        let span = effects::span(&act, self.session);
        if let Some(work) = effects::work(job, act, &self.state) {
            self.acts.spawn(work.instrument(span));
        }
    }

    async fn append(&mut self, bodies: Vec<EventBody>) -> Result<(), Broken> {
        if bodies.is_empty() {
            return Ok(());
        }
        let now = self.services.clock.now_ms();
        let appended = self.services.logs.append(self.session, self.head, now, bodies).await;
        let events = appended.map_err(|error| Broken(store_error(error)))?;
        self.updated_at_ms = now;
        events.iter().for_each(|event| self.measure.note(&event.body));
        if let Some(last) = events.last() {
            self.head = last.seq;
            self.publish_head();
        }
        // The index is for lists and is rebuilt from the logs; it never gates what the log already holds.
        if let Err(error) = self.services.index.put_session(self.view()).await {
            tracing::warn!(session = %self.session, error = &error as &dyn std::error::Error, "the index is behind");
        }
        Ok(())
    }

    fn publish_head(&self) {
        self.head_sender.send_if_modified(|head| std::mem::replace(head, self.head) != self.head);
    }

    fn answer_stops(&mut self) {
        let turn = self.state.turn.as_ref().map(|turn| turn.id);
        let view = self.view();
        let (waiting, ended): (Vec<_>, Vec<_>) =
            self.stop_waiters.drain(..).partition(|(stopped, _)| stopped.is_some() && *stopped == turn);
        self.stop_waiters = waiting;
        for (_, waiter) in ended {
            let _ = waiter.send(Ok(view.clone()));
        }
    }

    fn view(&self) -> SessionView {
        view(self.session, &self.state, self.head, self.created_at_ms, self.updated_at_ms)
    }
}

/// Tells the one who asked why it was not done, and the actor that it must sleep.
fn refuse<T>(reply: Reply<T>, Broken(error): Broken) -> Result<(), Broken> {
    let public = error.public.clone();
    // Whoever asked may be gone.
    let _ = reply.send(Err(SessionError { public, source: None }));
    Err(Broken(error))
}
