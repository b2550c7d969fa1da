//! The registry: id to actor, made on demand from the log, and the answers to everything that clients ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ostler_protocol::api::{CreateSession, MAX_PROMPT, SessionView, SubmitPrompt};
use ostler_protocol::event::{EVENT_VERSION, Person, RequestKey};
use ostler_protocol::{ErrorCode, EventBody, PromptId, SessionId};
use ostler_sandbox::fault;
use tokio::sync::oneshot;

use super::actor::Actor;
use super::error::{SessionError, forge_error, name_error, stopping, store_error, unknown};
use super::job::purpose;
use super::keys::{self, Keys};
use super::log::{fold, view};
use super::mailbox::{Handle, Message, Reply};
use super::services::Services;
use super::state::{Prompt, Workspace as Phase};
use crate::door::Account;
use crate::forge::RepositoryName;
use crate::workspace::{Workspace, chain};

/// Time that an actor may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// Longest name of a person, in characters.
const MAX_NAME: usize = 200;

/// Longest e-mail address of a person, in characters; see `api::validate`.
const MAX_EMAIL: usize = 254;

/// The place of one session's actor; empty until somebody needs it.
type Slot = Arc<tokio::sync::Mutex<Option<Handle>>>;

/// Actors by session.
pub(super) struct Registry {
    pub(super) services: Arc<Services>,
    keys: Keys,
    slots: Mutex<HashMap<SessionId, Slot>>,
    closing: AtomicBool,
}

impl Registry {
    pub(super) fn new(services: Services) -> Self {
        let (services, keys) = (Arc::new(services), Keys::new());
        Self { services, keys, slots: Mutex::new(HashMap::new()), closing: AtomicBool::new(false) }
    }

    /// The model of a new session.
    fn model(&self, named: Option<String>) -> Result<String, SessionError> {
        let models = &self.services.models;
        let Some(name) = named.or_else(|| models.default_name().map(str::to_owned)) else {
            let error = SessionError::new(ErrorCode::BadRequest, "no model was chosen, and this host has no default");
            return Err(error.with_hint("name one, such as `--model anthropic/NAME`, or start the host with one"));
        };
        let known = models.get(&name);
        known.map_err(|error| SessionError::new(ErrorCode::NotFound, error.to_string()))?;
        Ok(name)
    }

    pub(super) async fn create(
        self: &Arc<Self>,
        request: CreateSession,
        key: Option<String>,
    ) -> Result<SessionView, SessionError> {
        let Some(key) = key else { return self.make(request, None).await };
        let request_key = keys::request_key(key, &request)?;
        // In a task of its own: a client that goes away in the middle repeats its request, and must meet either nothing or
        // a session whose key is known.
        let registry = Arc::clone(self);
        let created = tokio::spawn(async move {
            let _turn = registry.keys.turn(&request_key.key).await;
            match registry.keys.find(&registry.services.index, &request_key).await? {
                Some(session) => registry.view(session).await,
                None => registry.make(request, Some(request_key)).await,
            }
        });
        let failed = |error| SessionError::new(ErrorCode::Internal, "the session could not be made").with_source(error);
        created.await.map_err(failed)?
    }

    async fn make(&self, request: CreateSession, key: Option<RequestKey>) -> Result<SessionView, SessionError> {
        let author = check_person(request.author)?;
        let repository = request.repository.parse::<RepositoryName>().map_err(name_error)?;
        let branch = self.services.forge.resolve(&repository, request.branch.as_deref()).await.map_err(forge_error)?;
        let model = self.model(request.model)?;
        let session = SessionId::generate();
        let created = EventBody::SessionCreated {
            session,
            repository: repository.to_string(),
            base_branch: branch.name,
            base_commit: branch.commit,
            branch: format!("ostler/{}", session.bare()),
            author,
            model,
            version: EVENT_VERSION,
            request: key.clone(),
        };
        let now = self.services.clock.now_ms();
        let mut state = super::state::State::default();
        state.apply(&created);
        self.services.logs.append(session, 0, now, vec![created]).await.map_err(store_error)?;
        fault::point("session.unindexed");
        crate::telemetry::metrics().sessions.add(1, &[]);
        let view = view(session, &state, 1, now, now);
        if let Some(key) = key {
            self.keys.note(&self.services.index, key, session).await;
        }
        // The session is in its log, which is what counts; the index is for lists and never gates it.
        if let Err(error) = self.services.index.put_session(view.clone()).await {
            tracing::warn!(%session, error = %chain(&error), "the index is behind");
        }
        Ok(view)
    }

    pub(super) async fn submit(
        self: &Arc<Self>,
        session: SessionId,
        prompt: SubmitPrompt,
        key: Option<String>,
    ) -> Result<ostler_protocol::api::PromptAccepted, SessionError> {
        let size = prompt.text.len();
        if prompt.text.trim().is_empty() {
            return Err(SessionError::new(ErrorCode::BadRequest, "the prompt is empty").with_hint("say what to do"));
        }
        if size > MAX_PROMPT {
            let message = format!("the prompt has {size} bytes, the limit is {MAX_PROMPT}");
            let error = SessionError::new(ErrorCode::TooLarge, message);
            return Err(error.with_hint("put long material into a file of the repository and name it in the prompt"));
        }
        if prompt.text.contains('\0') {
            let error = SessionError::new(ErrorCode::BadRequest, "the prompt holds a zero byte");
            return Err(error.with_hint("send text"));
        }
        let request = key.map(|key| keys::request_key(key, &prompt)).transpose()?;
        let author = match prompt.author {
            Some(author) => check_person(author)?,
            None => self.view(session).await?.author,
        };
        let prompt = Prompt { id: PromptId::generate(), text: prompt.text, author, request };
        self.ask(session, |reply| Message::Submit { prompt, reply }).await
    }

    pub(super) async fn view(self: &Arc<Self>, session: SessionId) -> Result<SessionView, SessionError> {
        self.ask(session, |reply| Message::View { reply }).await
    }

    pub(super) async fn stop(self: &Arc<Self>, session: SessionId) -> Result<SessionView, SessionError> {
        self.ask(session, |reply| Message::Stop { reply }).await
    }

    pub(super) async fn borrow(self: &Arc<Self>, session: SessionId) -> Result<Option<Arc<Workspace>>, SessionError> {
        self.ask(session, |reply| Message::Borrow { reply }).await
    }

    /// Asks an actor and waits for its answer, with a deadline.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        session: SessionId,
        message: impl FnOnce(Reply<T>) -> Message,
    ) -> Result<T, SessionError> {
        let handle = self.handle(session).await?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            handle.mailbox.send(message(reply)).await.map_err(|_| self.gone())?;
            answer.await.map_err(|_| self.gone())?
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("the session did not answer within {} s", ANSWER.as_secs());
                Err(SessionError::new(ErrorCode::Unavailable, message))
            }
        }
    }

    /// The actor of a session, started from its log where it does not run. One session that is slow to start delays
    /// only those who ask for it.
    pub(super) async fn handle(self: &Arc<Self>, session: SessionId) -> Result<Handle, SessionError> {
        let slot = Arc::clone(self.slots().entry(session).or_default());
        let mut place = slot.clone().lock_owned().await;
        // One whose task ended unexpectedly is started again.
        if let Some(handle) = place.as_ref().filter(|handle| !handle.mailbox.is_closed()) {
            return Ok(handle.clone());
        }
        // In a task of its own: a caller that goes away in the middle must not leave a sandbox that was claimed already to
        // nobody.
        let registry = Arc::clone(self);
        let starting = tokio::spawn(async move {
            let started = registry.start(session).await;
            *place = started.as_ref().ok().cloned();
            drop(place);
            if started.is_err() {
                registry.forget(session, &slot);
            }
            started
        });
        let failed =
            |error| SessionError::new(ErrorCode::Internal, "the session could not be started").with_source(error);
        starting.await.map_err(failed)?
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes away an empty slot, so that asking for sessions that do not exist leaves nothing.
    fn forget(&self, session: SessionId, slot: &Slot) {
        let mut slots = self.slots();
        // The map's and ours: whoever else waits for it may still fill it.
        if Arc::strong_count(slot) == 2 && slot.try_lock().is_ok_and(|place| place.is_none()) {
            slots.remove(&session);
        }
    }

    /// Why an actor does not answer.
    fn gone(&self) -> SessionError {
        if self.closing.load(Ordering::Acquire) {
            return stopping();
        }
        SessionError::new(ErrorCode::Internal, "the session ended unexpectedly").with_hint("try again: it starts anew")
    }

    async fn start(&self, session: SessionId) -> Result<Handle, SessionError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(stopping());
        }
        let folded = fold(&self.services, session).await?.ok_or_else(|| unknown(session))?;
        let account = Arc::new(Account::new(folded.state.network.passed));
        let workspace = match &folded.state.session {
            Some(identity) if folded.state.workspace == Phase::Ready => {
                self.reclaim(identity, Arc::clone(&account)).await
            }
            _ => {
                // Nobody can say how much of the repository is in one that was being filled.
                if let Err(error) = self.services.workspaces.abandon(session).await {
                    tracing::error!(%session, error = %chain(&error), "a sandbox that was being filled stays");
                }
                None
            }
        };
        Ok(Actor::start(session, Arc::clone(&self.services), folded, account, workspace))
    }

    async fn reclaim(&self, identity: &super::state::Identity, account: Arc<Account>) -> Option<Arc<Workspace>> {
        let purpose = purpose(identity, account).ok()?;
        match self.services.workspaces.reclaim(&purpose).await {
            Ok(workspace) => workspace,
            Err(error) => {
                tracing::warn!(session = %identity.id, error = %chain(&error), "a sandbox could not be taken up again");
                if let Err(error) = self.services.workspaces.end(identity.id).await {
                    tracing::error!(session = %identity.id, error = %chain(&error), "nor ended");
                }
                None
            }
        }
    }

    /// Ends every actor where it stands, for the next start to go on; none starts any more.
    pub(super) async fn quiesce(&self) {
        self.closing.store(true, Ordering::Release);
        let slots: Vec<Slot> = self.slots().values().cloned().collect();
        let ended = async {
            let mut ending = Vec::new();
            for slot in slots {
                // Waits for one that is just being started.
                let Some(handle) = slot.lock().await.take() else { continue };
                let _ = handle.mailbox.send(Message::Quit).await;
                ending.push(handle);
            }
            for handle in ending {
                handle.mailbox.closed().await;
            }
        };
        if tokio::time::timeout(ANSWER, ended).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
    }

    /// The actor of a session where it runs already.
    pub(super) fn running(&self, session: SessionId) -> Option<Handle> {
        // One that is just being started finds out by itself what lives.
        self.slots().get(&session)?.try_lock().ok()?.clone()
    }
}

pub(super) fn check_person(person: Person) -> Result<Person, SessionError> {
    let bad = |field: &str, value: &str, right: &str| {
        let message = format!("the author's {field} is `{value}`, it must be {right}");
        Err(SessionError::new(ErrorCode::BadRequest, message))
    };
    let Person { name, email } = person;
    let (name, email) = (name.trim().to_owned(), email.trim().to_owned());
    let control = |text: &str| text.chars().any(|c| c.is_control() || c == '<' || c == '>');
    if name.is_empty() || name.chars().count() > MAX_NAME || control(&name) {
        return bad("name", &name, "1 to 200 characters without control characters, `<` and `>`");
    }
    if !email.contains('@')
        || email.chars().count() > MAX_EMAIL
        || control(&email)
        || email.contains(char::is_whitespace)
    {
        return bad("email", &email, "an e-mail address of at most 254 characters");
    }
    Ok(Person { name, email })
}
