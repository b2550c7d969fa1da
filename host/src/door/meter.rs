//! What passes is counted, per connection and per session, and ends with the session's budget, to the byte.
//!
//! ```text
//!  a read or write of n bytes ─► reserve what is left, n at most ─► the socket ─► settle what really passed
//!                                  │ nothing is left
//!                                  └► one byte more is there ─► spent: every connection of the sandbox ends
//! ```

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::greeting::Duplex;
use super::report::{DoorEvent, Reporter, WINDOW};
use crate::egress::{Budget, Host};

/// Bytes from a sandbox and to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the sandbox.
    pub up: u64,
    /// To the sandbox.
    pub down: u64,
}

/// The bytes of one session, through all its doors one after the other: a new sandbox does not begin anew.
#[derive(Debug, Default)]
pub struct Account(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    passed: Bytes,
    /// What reads and writes under way may still add.
    reserved: Bytes,
}

impl Account {
    /// Goes on from what has passed already.
    #[must_use]
    pub fn new(passed: Bytes) -> Self {
        Self(Mutex::new(Sums { passed, reserved: Bytes::default() }))
    }

    /// What has passed.
    #[must_use]
    pub fn passed(&self) -> Bytes {
        self.sums().passed
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Bytes {
    fn of(&mut self, direction: Direction) -> &mut u64 {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn and(self, other: Self) -> Self {
        Self { up: self.up + other.up, down: self.down + other.down }
    }
}

/// How many bytes may pass now.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// So many; they are reserved.
    For(usize),
    /// None, unless what others reserved is not used.
    Later,
    /// None, for this reason.
    None(String),
}

/// The budget of one sandbox, and what its session has used of it.
#[derive(Debug)]
pub(super) struct Meter {
    budget: Budget,
    account: Arc<Account>,
    /// Cancelled when the budget is used up; every connection ends.
    spent: CancellationToken,
    why: OnceLock<String>,
    reporter: Arc<Reporter>,
}

impl Meter {
    pub(super) fn new(budget: Budget, account: Arc<Account>, reporter: Arc<Reporter>) -> Self {
        let used_up = |direction| used_up(budget, account.passed(), direction);
        // By an earlier sandbox of the session, whose people were told then.
        let why = used_up(Direction::Up).or_else(|| used_up(Direction::Down));
        let meter = Self { budget, account, spent: CancellationToken::new(), why: OnceLock::new(), reporter };
        if let Some(why) = why {
            let _ = meter.why.set(why);
            meter.spent.cancel();
        }
        meter
    }

    /// Why nothing may pass any more.
    pub(super) fn spent(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Ends when the budget is used up.
    pub(super) async fn until_spent(&self) {
        self.spent.cancelled().await;
    }

    fn reserve(&self, direction: Direction, wanted: usize) -> Room {
        let mut sums = self.account.sums();
        let left = left(self.budget, sums.passed.and(sums.reserved), direction);
        if left == 0 {
            return used_up(self.budget, sums.passed, direction).map_or(Room::Later, Room::None);
        }
        let granted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        *sums.reserved.of(direction) += granted as u64;
        Room::For(granted)
    }

    fn settle(&self, direction: Direction, reserved: usize, passed: usize) {
        let mut sums = self.account.sums();
        *sums.reserved.of(direction) -= reserved as u64;
        *sums.passed.of(direction) += passed as u64;
    }

    fn end(&self, why: String) -> io::Error {
        if self.why.set(why.clone()).is_ok() {
            self.reporter.send(DoorEvent::Spent { why });
        }
        self.spent.cancel();
        io::Error::new(io::ErrorKind::QuotaExceeded, "the budget of the sandbox is used up")
    }
}

/// Bytes that may still pass in a direction.
fn left(budget: Budget, used: Bytes, direction: Direction) -> u64 {
    let (used_here, most_here) = match direction {
        Direction::Up => (used.up, budget.up),
        Direction::Down => (used.down, budget.down),
    };
    let here = most_here.map_or(u64::MAX, |most| most.saturating_sub(used_here));
    here.min(budget.total.map_or(u64::MAX, |most| most.saturating_sub(used.up + used.down)))
}

/// Which part of the budget is used up, in words.
fn used_up(budget: Budget, used: Bytes, direction: Direction) -> Option<String> {
    let (what, bytes, most) = match direction {
        Direction::Up => ("sent", used.up, budget.up),
        Direction::Down => ("received", used.down, budget.down),
    };
    let found = [(what, bytes, most), ("sent and received", used.up + used.down, budget.total)];
    let over = found.into_iter().find_map(|(what, bytes, most)| Some((what, most.filter(|most| bytes >= *most)?)));
    over.map(|(what, most)| format!("the session has {what} the {most} bytes that it may"))
}

/// A connection to the outside whose bytes are counted; says how many they were, from time to time and when it ends.
pub(super) struct Counted {
    stream: TcpStream,
    meter: Arc<Meter>,
    to: (Host, u16),
    activity: Arc<Activity>,
    /// What was not told yet, and when something was told last.
    untold: Bytes,
    told: Instant,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, meter: Arc<Meter>, to: (Host, u16)) -> Self {
        Self { stream, meter, to, activity: Arc::default(), untold: Bytes::default(), told: Instant::now() }
    }

    /// When something passed last.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Makes that it ends with a reset: the other side must not take for a whole what was cut.
    pub(super) fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn passed(&mut self, direction: Direction, reserved: usize, passed: usize) {
        self.meter.settle(direction, reserved, passed);
        if passed == 0 {
            return;
        }
        *self.untold.of(direction) += passed as u64;
        self.activity.touch();
        // A host that ends without warning forgets no more of a long transfer than that of one window.
        if self.told.elapsed() >= WINDOW {
            self.tell(0);
        }
    }

    fn tell(&mut self, ended: u64) {
        let Bytes { up, down } = std::mem::take(&mut self.untold);
        self.told = Instant::now();
        self.meter.reporter.passed(&self.to.0, self.to.1, [ended, up, down]);
    }

    /// Whether there is anything to read for which nothing is left.
    fn poll_end(&self, context: &mut Context<'_>, why: String) -> Poll<io::Result<()>> {
        let mut byte = [0];
        match ready!(self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)))? {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(self.meter.end(why))),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.tell(1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = match self.meter.reserve(Direction::Down, buffer.remaining()) {
            Room::For(room) => room,
            Room::Later => return later(context),
            Room::None(why) => return self.poll_end(context, why),
        };
        let before = buffer.filled().len();
        let read = if room == buffer.remaining() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
            let count = part.filled().len();
            buffer.advance(count);
            read
        };
        self.passed(Direction::Down, room, buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = match self.meter.reserve(Direction::Up, bytes.len()) {
            Room::For(room) => room,
            Room::Later => return later(context),
            Room::None(why) => return Poll::Ready(Err(self.meter.end(why))),
        };
        let written = Pin::new(&mut self.stream).poll_write(context, &bytes[..room]);
        let count = if let Poll::Ready(Ok(count)) = &written { *count } else { 0 };
        self.passed(Direction::Up, room, count);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A reservation lasts for one call of the system: it is worth asking again at once.
fn later<T>(context: &Context<'_>) -> Poll<T> {
    context.waker().wake_by_ref();
    Poll::Pending
}

/// When something passed last, in milliseconds from the beginning.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Activity {
    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has passed for `idle`.
    pub(super) async fn until_idle(&self, idle: Duration) {
        loop {
            let since = self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
            match idle.checked_sub(since) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }
}
