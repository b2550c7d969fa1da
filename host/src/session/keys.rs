//! Requests that carry a key: a repetition gets the answer of the first, and another request under the same key none.
//!
//! ```text
//!  POST with a key ─► turn of the key ─► known? ─┬─► same request: the session that it made
//!                                                ├─► another request: conflict
//!                                                └─► no: make it; the key is in the event, so both are durable or neither
//! ```
//!
//! The event is the truth; the index only finds it and is rebuilt from the logs. Where the index cannot be written, this
//! host remembers the key itself, and the next one finds it in the log. Keys of prompts live in their session's state.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use ostler_protocol::event::RequestKey;
use ostler_protocol::{ErrorCode, SessionId};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::{SessionError, store_error};
use crate::store::Index;
use crate::workspace::chain;

/// Keyed requests that can be under way at the same time without one waiting for another that has nothing to do with it.
const TURNS: usize = 64;

/// The keys of requests that make sessions.
pub(super) struct Keys {
    turns: [tokio::sync::Mutex<()>; TURNS],
    /// Those that the index could not take.
    unindexed: Mutex<HashMap<String, (RequestKey, SessionId)>>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { turns: std::array::from_fn(|_| tokio::sync::Mutex::default()), unindexed: Mutex::default() }
    }

    /// Waits until no other request with this key is under way.
    pub(super) async fn turn(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default();
        self.turns[turn].lock().await
    }

    /// The session that this very request made; a conflict where the key came with another one.
    pub(super) async fn find(&self, index: &Index, request: &RequestKey) -> Result<Option<SessionId>, SessionError> {
        let here = self.unindexed().get(&request.key).cloned();
        let found = match here {
            Some(found) => Some(found),
            None => index.request_of_key(request.key.clone()).await.map_err(store_error)?,
        };
        let Some((first, session)) = found else { return Ok(None) };
        same(&first, request).map(|()| Some(session))
    }

    /// Notes what a request made. It is in the log already.
    pub(super) async fn note(&self, index: &Index, request: RequestKey, session: SessionId) {
        if let Err(error) = index.put_key(request.clone(), session).await {
            tracing::warn!(%session, error = %chain(&error), "the index is behind");
            self.unindexed().insert(request.key.clone(), (request, session));
        }
    }

    fn unindexed(&self) -> std::sync::MutexGuard<'_, HashMap<String, (RequestKey, SessionId)>> {
        self.unindexed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key with the digest of its request: SHA-256 of its JSON, whose fields have one order.
pub(super) fn request_key(key: String, request: &impl Serialize) -> Result<RequestKey, SessionError> {
    let text = serde_json::to_vec(request).map_err(|error| {
        SessionError::new(ErrorCode::Internal, "the request could not be written as JSON").with_source(error)
    })?;
    Ok(RequestKey { key, digest: format!("sha256:{}", hex::encode(Sha256::digest(text))) })
}

/// Whether two requests with the same key are the same request.
pub(super) fn same(first: &RequestKey, request: &RequestKey) -> Result<(), SessionError> {
    if first.digest == request.digest {
        return Ok(());
    }
    let message = format!("the idempotency key `{}` came with another request before", request.key);
    Err(SessionError::new(ErrorCode::Conflict, message)
        .with_hint("take a new key for each request, and repeat a request exactly as it was"))
}
