//! Reading a session's log: the state that it amounts to, and what clients see of a state.

use ostler_protocol::SessionId;
use ostler_protocol::api::SessionView;
use ostler_protocol::event::Person;

use super::error::{SessionError, store_error};
use super::services::Services;
use super::state::{Identity, State};

/// A session as its log tells it.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) state: State,
    /// Sequence number of the last event.
    pub(super) head: u64,
    pub(super) created_at_ms: u64,
    pub(super) updated_at_ms: u64,
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

/// What clients see of a state.
pub(super) fn view(
    session: SessionId,
    state: &State,
    head: u64,
    created_at_ms: u64,
    updated_at_ms: u64,
) -> SessionView {
    let nobody = || Person { name: String::new(), email: String::new() };
    let identity = state.session.as_ref();
    let text = |field: fn(&Identity) -> &String| identity.map(field).cloned().unwrap_or_default();
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
        sandboxes_cut_off: state.sandboxes_cut_off,
        created_at_ms,
        updated_at_ms,
    }
}
