//! Copying between the two sides of a connection, as it is: no byte is added, lost or held back.
//!
//! ```text
//!  small room ──a read fills it, and there is a large one──► large room: bulk
//!      ▲                                                        │
//!      └──────────────────── nothing comes for a moment ────────┘
//! ```
//!
//! Splicing in the kernel was measured and is not faster: through loopback, moving references to pages costs what copying warm
//! bytes costs. What counts is how much is moved at once: fewer, larger pieces wake the three programs less often. Such rooms are few, for
//! a sandbox and for the host, so that many connections do not take the memory.
//!
//! An end of one side is passed on and the other goes on; whatever is cut in the middle ends with a reset on both sides, so
//! that nobody takes a part for the whole.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::choke::Egress;
use super::greeting::Heard;
use super::meter::Counted;

/// Bytes of a small room and of a large one.
const SMALL: usize = 16 * 1024;
const LARGE: usize = 512 * 1024;

/// Large rooms of one door, and of all together: 64 MiB.
const OF_DOOR: usize = 8;
const OF_ALL: usize = 128;

/// Time without a byte after which a large room is given back.
const REST: Duration = Duration::from_secs(1);

/// Most time without any byte in either direction.
const IDLE: Duration = Duration::from_secs(15 * 60);

static ALL: Semaphore = Semaphore::const_new(OF_ALL);

/// The large rooms of one door.
#[derive(Debug)]
pub(super) struct Rooms(Semaphore);

impl Default for Rooms {
    fn default() -> Self {
        Self(Semaphore::new(OF_DOOR))
    }
}

impl Rooms {
    fn large(&self) -> Option<(SemaphorePermit<'_>, SemaphorePermit<'_>)> {
        Some((self.0.try_acquire().ok()?, ALL.try_acquire().ok()?))
    }
}

/// Copies both ways until both have ended, nothing passes any more, or the budget is used up.
pub(super) async fn relay(egress: &Egress, mut heard: Heard, mut upstream: Counted) {
    let activity = upstream.activity();
    let copied = {
        let (mut inside, mut to_inside) = split(&mut heard);
        let (mut outside, mut to_outside) = split(&mut upstream);
        let rooms = egress.rooms();
        let both = async {
            tokio::try_join!(copy(&mut inside, &mut to_outside, rooms), copy(&mut outside, &mut to_inside, rooms))
        };
        tokio::select! {
            copied = both => copied.map(drop),
            () = activity.until_idle(IDLE) => Err(io::ErrorKind::TimedOut.into()),
            () = egress.meter().until_spent() => Err(io::ErrorKind::QuotaExceeded.into()),
        }
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "a connection to the outside was cut");
        heard.stream.reset_on_close();
        upstream.reset_on_close();
    }
}

/// Copies one way to its end, and passes that on.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    rooms: &Rooms,
) -> io::Result<()> {
    let mut room = vec![0; SMALL];
    let mut places = None;
    loop {
        let count = if places.is_none() {
            from.read(&mut room).await?
        } else if let Ok(count) = timeout(REST, from.read(&mut room)).await {
            count?
        } else {
            (room, places) = (vec![0; SMALL], None);
            continue;
        };
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&room[..count]).await?;
        if count == room.len() && places.is_none() {
            places = rooms.large();
            if places.is_some() {
                room = vec![0; LARGE];
            }
        }
    }
}
