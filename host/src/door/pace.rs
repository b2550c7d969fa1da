//! How often a sandbox may ask for something: so many times in a second, and some more at once after a quiet while.
//!
//! Whoever asks too often waits for its turn. The queues behind are bounded by others: connections by their number, datagrams by the
//! kernel, which drops what nobody takes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time between two, in the long run.
    pub every: Duration,
    /// How many may come at once.
    pub burst: u32,
}

impl Rate {
    /// So many in a second, and twice as many at once.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { every: Duration::from_micros(1_000_000 / count as u64), burst: 2 * count }
    }
}

/// Turns at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// When the next turn would be, if nobody had ever been quiet.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, next: Mutex::default() }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) {
        let now = Instant::now();
        let turn = self.take(now);
        if turn > now {
            sleep_until(turn).await;
        }
    }

    /// Takes the next turn; when it is. Of the time in which nobody asked, as much counts as a burst takes (the generic cell rate
    /// algorithm, ITU-T I.371).
    fn take(&self, now: Instant) -> Instant {
        let Rate { every, burst } = self.rate;
        let oldest = now.checked_sub(every * burst.saturating_sub(1)).unwrap_or(now);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(oldest, |next| next.max(oldest));
        *next = Some(turn + every);
        turn.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_turns_come_one_by_one_and_a_quiet_while_gives_no_more_than_a_burst() {
        let every = Duration::from_millis(10);
        let pace = Pace::new(Rate { every, burst: 3 });
        let began = Instant::now() + Duration::from_secs(60);
        let waits = |at: Instant| pace.take(at).duration_since(at);
        assert_eq!([(); 5].map(|()| waits(began)), [0, 0, 0, 1, 2].map(|turns| every * turns));
        let later = began + Duration::from_secs(3600);
        assert_eq!([(); 5].map(|()| waits(later)), [0, 0, 0, 1, 2].map(|turns| every * turns));
    }
}
