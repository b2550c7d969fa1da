//! The index over all sessions: lists, pull requests, the host's epoch.
//!
//! The index never gates an acknowledgement: a session's row is written after its events, and rebuilt from them when
//! the host starts.

use std::path::Path;

use ostler_protocol::api::{PullRequestView, SessionView};
use ostler_protocol::{PullRequestId, SessionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::threads::Thread;
use super::{database, pulls};

/// Format of the index, in `PRAGMA user_version`.
pub(super) const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE session (
    id            TEXT PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    view          TEXT NOT NULL
) STRICT;
CREATE TABLE host (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO host (only, epoch) VALUES (1, 0);
PRAGMA user_version = 1;
";

/// The index database.
pub struct Index {
    thread: Thread<Connection>,
}

fn query(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Query { operation, source }
}

impl Index {
    /// Opens the index, making it where it is missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        Ok(Self {
            thread: Thread::start("index-db", move || {
                let schema = format!("{} {SCHEMA}", pulls::PULLS_MIGRATION);
                database::open(&path, FORMAT, &schema)
            })??,
        })
    }

    /// Counts one more start of the host and returns its number: the epoch of everything it asks for.
    pub async fn next_epoch(&self) -> Result<u64, StoreError> {
        self.thread
            .run(|connection| {
                let sql = "UPDATE host SET epoch = epoch + 1 RETURNING epoch";
                let epoch = database::write_returning(connection, sql, [], |row| row.get::<_, i64>(0));
                let counted = epoch.and_then(|epoch| epoch.ok_or(rusqlite::Error::QueryReturnedNoRows));
                counted.map(i64::cast_unsigned).map_err(query("count the epoch"))
            })
            .await
    }

    /// Writes a session's row.
    pub async fn put_session(&self, view: SessionView) -> Result<(), StoreError> {
        self.thread
            .run(move |connection| {
                let text = serde_json::to_string(&view)
                    .map_err(|source| StoreError::Corrupt { what: format!("row of {}", view.id), source })?;
                connection
                    .execute(
                        "INSERT INTO session (id, created_at_ms, view) VALUES (?1, ?2, ?3)
                         ON CONFLICT (id) DO UPDATE SET view = excluded.view",
                        params![view.id.to_string(), view.created_at_ms.cast_signed(), text],
                    )
                    .map_err(query("write a session's row"))?;
                Ok(())
            })
            .await
    }

    /// Every session, newest first.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, StoreError> {
        self.thread
            .run(|connection| {
                let error = query("list the sessions");
                let mut statement =
                    connection.prepare_cached("SELECT view FROM session ORDER BY id DESC").map_err(&error)?;
                let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(&error)?;
                rows.map(|row| read_view(&row.map_err(&error)?)).collect()
            })
            .await
    }

    /// One session.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionView>, StoreError> {
        self.thread
            .run(move |connection| {
                let text: Option<String> = connection
                    .query_row("SELECT view FROM session WHERE id = ?1", [id.to_string()], |row| row.get(0))
                    .optional()
                    .map_err(query("read a session's row"))?;
                text.map(|text| read_view(&text)).transpose()
            })
            .await
    }

    /// Opens a pull request, or updates the open one of the same repository and head branch; see [`pulls::insert_pull`].
    pub async fn put_pull_request(
        &self,
        new: pulls::NewPull,
    ) -> Result<(PullRequestView, pulls::PullWrite), StoreError> {
        self.thread.run(move |connection| pulls::insert_pull(connection, &new)).await
    }

    /// Every pull request, newest first.
    pub async fn pull_requests(&self) -> Result<Vec<PullRequestView>, StoreError> {
        self.thread.run(|connection| pulls::list_pulls(connection)).await
    }

    /// One pull request.
    pub async fn pull_request(&self, id: PullRequestId) -> Result<Option<PullRequestView>, StoreError> {
        self.thread.run(move |connection| pulls::get_pull(connection, id)).await
    }
}

fn read_view(text: &str) -> Result<SessionView, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { what: "a session's row".into(), source })
}
