//! What passes is counted, per connection and per sandbox, and ends with the sandbox's budget.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::report::{DoorEvent, Reporter};
use crate::egress::{Budget, Host};

/// The bytes of one sandbox, and how many it may have.
#[derive(Debug)]
pub(super) struct Meter {
    budget: Budget,
    up: AtomicU64,
    down: AtomicU64,
    /// Cancelled when the budget is used up; every connection ends.
    spent: CancellationToken,
    why: OnceLock<String>,
    reporter: Arc<Reporter>,
}

impl Meter {
    pub(super) fn new(budget: Budget, reporter: Arc<Reporter>) -> Self {
        let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { budget, up, down, spent: CancellationToken::new(), why: OnceLock::new(), reporter }
    }

    /// Why nothing may pass any more.
    pub(super) fn spent(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Ends when the budget is used up.
    pub(super) async fn until_spent(&self) {
        self.spent.cancelled().await;
    }

    fn add(&self, up: u64, down: u64) -> io::Result<()> {
        let up = self.up.fetch_add(up, Ordering::Relaxed) + up;
        let down = self.down.fetch_add(down, Ordering::Relaxed) + down;
        let Budget { up: most_up, down: most_down, total } = self.budget;
        let over = |bytes: u64, most: Option<u64>| most.filter(|most| bytes > *most);
        let found = [
            ("sent", over(up, most_up)),
            ("received", over(down, most_down)),
            ("sent and received", over(up + down, total)),
        ];
        for (what, most) in found {
            if let Some(most) = most {
                let why = format!("the sandbox has {what} the {most} bytes that it may");
                if self.why.set(why.clone()).is_ok() {
                    self.reporter.send(DoorEvent::Spent { why });
                }
                self.spent.cancel();
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the budget of the sandbox is used up"));
            }
        }
        Ok(())
    }
}

/// A connection to the outside whose bytes are counted; says how many they were when it ends.
pub(super) struct Counted {
    stream: TcpStream,
    meter: Arc<Meter>,
    to: (Host, u16),
    activity: Arc<Activity>,
    up: u64,
    down: u64,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, meter: Arc<Meter>, to: (Host, u16)) -> Self {
        Self { stream, meter, to, activity: Arc::default(), up: 0, down: 0 }
    }

    /// When something passed last.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    fn passed(&mut self, up: usize, down: usize) -> io::Result<()> {
        let (up, down) = (up as u64, down as u64);
        self.up += up;
        self.down += down;
        self.activity.touch();
        self.meter.add(up, down)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.reporter.closed(&self.to.0, self.to.1, self.up, self.down);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.passed(0, buffer.filled().len() - before))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        Poll::Ready(self.passed(written, 0).map(|()| written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
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
