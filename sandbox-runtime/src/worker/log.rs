//! Catching what libcontainer logs while it works, because its errors name only the top of their chain.
//!
//! The processes that it forks share the open file but no memory, so the lines go to a memory file that is
//! opened for appending.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ostler_wire::Failure;
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::step::Step;

/// The most that is added to an error, in bytes.
const TAIL: u64 = 1500;

/// Lines of one worker and its children.
pub(super) struct Log {
    file: Arc<File>,
}

impl Log {
    pub(super) fn new() -> Result<Self, Failure> {
        let memory =
            memfd_create("ostler-log", MemfdFlags::CLOEXEC).step("make log", || "of libcontainer".to_owned())?;
        fcntl_setfl(&memory, OFlags::APPEND).step("make log", || "of libcontainer".to_owned())?;
        Ok(Self { file: Arc::new(File::from(memory)) })
    }

    /// A subscriber that writes warnings and errors to this log.
    pub(super) fn subscriber(&self) -> Result<impl Subscriber + Send + Sync + use<>, Failure> {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(Arc::clone(&self.file))
            .with_ansi(false)
            .without_time()
            .with_target(false);
        // libcgroups warns of every controller that the machine lacks.
        let filter = Targets::new().with_default(Level::WARN).with_target("libcgroups", Level::ERROR);
        Ok(tracing_subscriber::registry().with(filter).with(lines))
    }

    /// The last lines, ready to be appended to an error; empty where there are none.
    pub(super) fn tail(&self) -> String {
        let size = self.file.metadata().map(|data| data.len()).unwrap_or(0);
        let start = size.saturating_sub(TAIL);
        let mut bytes = vec![0; (size - start) as usize];
        if bytes.is_empty() || self.file.read_exact_at(&mut bytes, start).is_err() {
            return String::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        format!("; libcontainer said: {}", lines.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_holds_what_was_logged_last() {
        let log = Log::new().unwrap();
        assert_eq!(log.tail(), "");
        tracing::subscriber::with_default(log.subscriber().unwrap(), || {
            tracing::info!("not this");
            tracing::error!(path = "/x", "first");
            tracing::warn!("last");
        });
        assert_eq!(log.tail(), "; libcontainer said: ERROR first path=\"/x\" | WARN last");
    }
}
