//! The log of a session: `sessions/<bare id>.db`, append-only, durable before anyone sees an event.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ostler_protocol::{Event, EventBody, SessionId};
use rusqlite::{Connection, params};

use super::database;
use super::error::StoreError;
use super::threads::Shards;

/// Format of a session's file, in `PRAGMA user_version`.
pub(super) const FORMAT: i64 = 1;

/// Open files per thread; the least recently used one is closed beyond that.
const OPEN_FILES: usize = 128;

/// Formats of a session's file.
const FORMATS: &[&str] = &["
CREATE TABLE event (
    seq   INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body  TEXT    NOT NULL
) STRICT;
"];

/// The logs of all sessions.
pub struct SessionLogs {
    folder: PathBuf,
    shards: Shards,
}

impl SessionLogs {
    /// Opens the folder that holds the files, making it where it is missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Create { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), shards: Shards::start(folder)? })
    }

    /// Appends a batch after event `head` in one durable transaction and returns it numbered. A `head` of 0 makes the
    /// log. The batch is on disk when this returns, or nothing of it is.
    pub async fn append(
        &self,
        session: SessionId,
        head: u64,
        at_ms: u64,
        bodies: Vec<EventBody>,
    ) -> Result<Vec<Event>, StoreError> {
        self.shards.of(session).run(move |logs| logs.append(session, head, at_ms, bodies)).await
    }

    /// Every session that has a log, oldest first.
    pub async fn all(&self) -> Result<Vec<SessionId>, StoreError> {
        let folder = self.folder.clone();
        let list = move || -> std::io::Result<Vec<SessionId>> {
            let mut sessions = Vec::new();
            for entry in std::fs::read_dir(&folder)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let bare = name.strip_suffix(".db").unwrap_or_default();
                if let Ok(session) = format!("{}_{bare}", SessionId::PREFIX).parse() {
                    sessions.push(session);
                }
            }
            sessions.sort();
            Ok(sessions)
        };
        match tokio::task::spawn_blocking(list).await {
            Ok(listed) => listed.map_err(|source| StoreError::List { path: self.folder.clone(), source }),
            Err(_) => Err(StoreError::Stopped),
        }
    }

    /// Events after `after`, oldest first, at most `limit`.
    pub async fn read(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.shards.of(session).run(move |logs| logs.read(session, after, limit)).await
    }
}

/// The connections of one thread.
pub(super) struct OpenLogs {
    folder: PathBuf,
    open: HashMap<SessionId, (u64, Connection)>,
    clock: u64,
}

impl OpenLogs {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, open: HashMap::new(), clock: 0 }
    }

    fn append(
        &mut self,
        session: SessionId,
        head: u64,
        at_ms: u64,
        bodies: Vec<EventBody>,
    ) -> Result<Vec<Event>, StoreError> {
        let connection = self.connection(session, if head == 0 { Missing::Make } else { Missing::Fail })?;
        let query = |operation| move |source| StoreError::Query { operation, source };
        let transaction = connection.transaction().map_err(query("begin an append"))?;
        let found: u64 = transaction
            .query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(query("read the head of a log"))?;
        if found != head {
            return Err(StoreError::Diverged { session, expected: head, found });
        }
        let mut events = Vec::with_capacity(bodies.len());
        for (body, seq) in bodies.into_iter().zip(head + 1..) {
            let text = serde_json::to_string(&body)
                .map_err(|source| StoreError::Corrupt { what: format!("event {seq} of {session}"), source })?;
            transaction
                .execute(
                    "INSERT INTO event (seq, at_ms, body) VALUES (?1, ?2, ?3)",
                    params![seq.cast_signed(), at_ms.cast_signed(), text],
                )
                .map_err(query("append an event"))?;
            events.push(Event { seq, at_ms, body });
        }
        transaction.commit().map_err(query("commit an append"))?;
        Ok(events)
    }

    fn read(&mut self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let connection = self.connection(session, Missing::Fail)?;
        let query = |source| StoreError::Query { operation: "read events", source };
        let mut statement = connection
            .prepare_cached("SELECT seq, at_ms, body FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")
            .map_err(query)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![after.cast_signed(), limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
            })
            .map_err(query)?;
        let mut events = Vec::new();
        for row in rows {
            let (seq, at_ms, text) = row.map_err(query)?;
            let body = serde_json::from_str(&text)
                .map_err(|source| StoreError::Corrupt { what: format!("event {seq} of {session}"), source })?;
            events.push(Event { seq: seq.cast_unsigned(), at_ms: at_ms.cast_unsigned(), body });
        }
        Ok(events)
    }

    fn connection(&mut self, session: SessionId, missing: Missing) -> Result<&mut Connection, StoreError> {
        self.clock += 1;
        let clock = self.clock;
        if !self.open.contains_key(&session) {
            let path = self.folder.join(format!("{}.db", session.bare()));
            if matches!(missing, Missing::Fail) && !path.exists() {
                return Err(StoreError::UnknownSession(session));
            }
            let connection = database::open(&path, FORMATS)?;
            self.close_oldest();
            self.open.insert(session, (clock, connection));
        }
        let Some((used, connection)) = self.open.get_mut(&session) else {
            return Err(StoreError::UnknownSession(session));
        };
        *used = clock;
        Ok(connection)
    }

    fn close_oldest(&mut self) {
        if self.open.len() < OPEN_FILES {
            return;
        }
        if let Some(oldest) = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(session, _)| *session) {
            self.open.remove(&oldest);
        }
    }
}

/// What to do about a log that does not exist.
enum Missing {
    Make,
    Fail,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str) -> EventBody {
        EventBody::Notice { text: text.into() }
    }

    #[tokio::test]
    async fn a_batch_is_numbered_without_gaps_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let logs = SessionLogs::open(folder.path()).unwrap();
        let session = SessionId::generate();
        let first = logs.append(session, 0, 5, vec![notice("a"), notice("b")]).await.unwrap();
        assert_eq!(first.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
        logs.append(session, 2, 6, vec![notice("c")]).await.unwrap();
        let reopened = SessionLogs::open(folder.path()).unwrap();
        let events = reopened.read(session, 1, 10).await.unwrap();
        assert_eq!(
            events,
            [Event { seq: 2, at_ms: 5, body: notice("b") }, Event { seq: 3, at_ms: 6, body: notice("c") }]
        );
    }

    #[tokio::test]
    async fn a_second_writer_is_found_out_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let logs = SessionLogs::open(folder.path()).unwrap();
        let session = SessionId::generate();
        logs.append(session, 0, 1, vec![notice("a")]).await.unwrap();
        let error = logs.append(session, 0, 1, vec![notice("b")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Diverged { expected: 0, found: 1, .. }), "{error:?}");
        assert_eq!(logs.read(session, 0, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_unknown_session_is_an_error_and_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let logs = SessionLogs::open(folder.path()).unwrap();
        let error = logs.read(SessionId::generate(), 0, 10).await.unwrap_err();
        assert!(matches!(error, StoreError::UnknownSession(_)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let session = SessionId::generate();
        let path = folder.path().join(format!("{}.db", session.bare()));
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99;").unwrap();
        let logs = SessionLogs::open(folder.path()).unwrap();
        let error = logs.read(session, 0, 1).await.unwrap_err();
        assert!(error.to_string().contains("has format 99"), "{error}");
    }

    #[tokio::test]
    async fn more_sessions_than_open_files_all_stay_readable() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = OpenLogs::new(folder.path().to_owned());
        let sessions: Vec<SessionId> = (0..OPEN_FILES + 5).map(|_| SessionId::generate()).collect();
        for session in &sessions {
            logs.append(*session, 0, 1, vec![notice("a")]).unwrap();
        }
        assert!(logs.open.len() <= OPEN_FILES);
        for session in &sessions {
            assert_eq!(logs.read(*session, 0, 10).unwrap().len(), 1);
        }
    }
}
