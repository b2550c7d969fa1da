//! Which formats the databases of a data folder have, read without opening them: nothing is changed, locked or repaired.
//!
//! A format is in SQLite's `user_version`, four bytes at offset 60 of a file (<https://www.sqlite.org/fileformat.html>).
//! What stands only in a write-ahead log is not seen here; opening the database compares once more.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ostler_protocol::SessionId;
use rustix::fs::OFlags;

use super::error::StoreError;
use super::{index, session_log};

/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSION: std::ops::Range<usize> = 60..64;

/// Looks at every database of a data folder and returns how many there are.
///
/// # Errors
/// [`StoreError::Newer`] for the first one that a newer version wrote; when a file or folder that is there cannot be read.
pub fn check_formats(index: &Path, sessions: &Path) -> Result<usize, StoreError> {
    let mut seen = usize::from(check(index, index::FORMAT)?);
    let failed = |source| StoreError::List { path: sessions.to_owned(), source };
    let entries = match std::fs::read_dir(sessions) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(seen),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let bare = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".db")).unwrap_or_default();
        // Only what would be read as one later: a stray file keeps no host from starting.
        if format!("{}_{bare}", SessionId::PREFIX).parse::<SessionId>().is_ok() {
            seen += usize::from(check(&path, session_log::FORMAT)?);
        }
    }
    Ok(seen)
}

/// Whether the file is a database, which is then of a known format.
fn check(path: &Path, known: i64) -> Result<bool, StoreError> {
    let failed = |source| StoreError::Look { path: path.to_owned(), source };
    // Root looks into a folder of the host's user: nothing there may lead elsewhere or make it wait.
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags.cast_signed()).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(false);
    }
    let mut header = Vec::new();
    file.take(VERSION.end as u64).read_to_end(&mut header).map_err(failed)?;
    // A file that was only just made is still empty.
    let version = header.get(VERSION).filter(|_| header.starts_with(MAGIC)).and_then(|bytes| bytes.try_into().ok());
    let Some(found) = version.map(i32::from_be_bytes).map(i64::from) else { return Ok(false) };
    if found > known { Err(StoreError::Newer { path: path.to_owned(), found, known }) } else { Ok(true) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Index, SessionLogs};
    use ostler_protocol::EventBody;
    use rusqlite::Connection;

    #[tokio::test]
    async fn what_we_write_is_known_and_a_newer_file_is_refused_by_name_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (index, sessions) = (folder.path().join("index.db"), folder.path().join("sessions"));
        assert_eq!(check_formats(&index, &sessions).unwrap(), 0);
        drop(Index::open(&index).unwrap());
        let (logs, session) = (SessionLogs::open(&sessions).unwrap(), SessionId::generate());
        logs.append(session, 0, 1, vec![EventBody::Notice { text: "a".into() }]).await.unwrap();
        drop(logs);
        let log = sessions.join(format!("{}.db", session.bare()));
        // Closes what the thread may still hold open, so that the header is on the disk.
        for path in [&index, &log] {
            Connection::open(path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
        }
        assert_eq!(check_formats(&index, &sessions).unwrap(), 2);
        for (path, known) in [(&log, session_log::FORMAT), (&index, index::FORMAT)] {
            let text = format!("PRAGMA user_version = {}; PRAGMA wal_checkpoint(TRUNCATE);", known + 1);
            Connection::open(path).unwrap().execute_batch(&text).unwrap();
            let before = std::fs::read(path).unwrap();
            let error = check_formats(&index, &sessions).unwrap_err();
            assert!(
                matches!(&error, StoreError::Newer { path: named, found, .. } if named == path && *found == known + 1)
            );
            assert_eq!(std::fs::read(path).unwrap(), before);
        }
    }

    #[test]
    fn a_newer_file_is_refused_before_opening_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99; CREATE TABLE a (b);").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(Index::open(&path), Err(StoreError::Newer { found: 99, .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
