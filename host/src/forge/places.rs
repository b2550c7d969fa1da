//! Places among the git processes that may run at one time, and who gets them.
//!
//! ```text
//!  the host and its people ─────────────────────────────► places of their own
//!  a session: its first git ────────────────────────────► places of all sessions
//!             a further one ──► half of them, at most ──►
//! ```
//!
//! A sandbox may keep git waiting as long as the limits of a transfer allow. So half of the sessions' places are for those who
//! have none: it takes as many hostile sessions as there are such places to keep another one from git.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::ForgeError;

/// The places of one forge.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    patience: Duration,
    pub(super) own: Arc<Semaphore>,
    pub(super) sessions: Arc<Semaphore>,
    further: Arc<Semaphore>,
}

/// What a session has; as many as it has routers are a mistake of their maker.
#[derive(Clone, Debug)]
pub(super) struct Share {
    first: Arc<Semaphore>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _held: Vec<OwnedSemaphorePermit>,
}

impl Share {
    pub(super) fn new() -> Self {
        Self { first: Arc::new(Semaphore::new(1)) }
    }
}

impl Places {
    /// As many for the host as for all sessions; a wait for one is given up after `patience`.
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count));
        Self { most, patience, own: places(most), sessions: places(most), further: places((most / 2).max(1)) }
    }

    /// A place for the host and the holders of its token.
    pub(super) async fn own(&self) -> Result<Place, ForgeError> {
        self.within(async { vec![take(&self.own).await] }).await
    }

    /// A place for a session.
    pub(super) async fn of_session(&self, share: &Share) -> Result<Place, ForgeError> {
        self.within(async {
            // Always in this order: whoever waits for a place of all holds what only others of its kind wait for.
            let kind = match Arc::clone(&share.first).try_acquire_owned() {
                Ok(first) => Some(first),
                Err(_) => take(&self.further).await,
            };
            vec![kind, take(&self.sessions).await]
        })
        .await
    }

    async fn within(
        &self,
        places: impl Future<Output = Vec<Option<OwnedSemaphorePermit>>>,
    ) -> Result<Place, ForgeError> {
        let taken = timeout(self.patience, places).await.ok();
        // None of these is ever closed.
        let held = taken.and_then(|taken| taken.into_iter().collect());
        held.map(|held| Place { _held: held }).ok_or(ForgeError::Busy { processes: self.most })
    }
}

async fn take(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn however_much_few_sessions_want_another_one_has_a_place() {
        let places = Places::new(8, Duration::from_millis(20));
        let greedy: Vec<Share> = (0..3).map(|_| Share::new()).collect();
        let mut held = Vec::new();
        for share in greedy.iter().cycle().take(60) {
            held.extend(places.of_session(share).await);
        }
        assert_eq!(held.len(), 3 + 4, "one each and half of all");
        let modest = Share::new();
        let place = places.of_session(&modest).await.unwrap();
        assert!(places.of_session(&modest).await.is_err(), "a second one is as greedy");
        drop(place);
        places.of_session(&modest).await.unwrap();
        places.own().await.unwrap();
        held.clear();
        assert!(places.of_session(&greedy[0]).await.is_ok(), "they are free again");
    }
}
