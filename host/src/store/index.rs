//! The index over all sessions: lists, pull requests, the host's epoch.
//!
//! The index never gates an acknowledgement: a session's row is written after its events, and rebuilt from them when
//! the host starts.

use std::path::Path;

use ostler_protocol::api::{PullRequestView, SessionStatus, SessionView};
use ostler_protocol::event::RequestKey;
use ostler_protocol::{PullRequestId, SessionId};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::error::StoreError;
use super::threads::Thread;
use super::{database, pulls};

/// Format of the index, in `PRAGMA user_version`: as many as there are steps to it.
pub(super) const FORMAT: i64 = 3;

/// First format of the index, beside the pull requests.
const SESSIONS: &str = "
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
";

/// Lists are read page by page, in the order of ids, and filtered.
const PAGES: &str = "
CREATE INDEX session_by_repository ON session (json_extract(view, '$.repository'), id);
CREATE INDEX session_by_status ON session (json_extract(view, '$.status'), id);
DROP INDEX pull_requests_by_time;
";

/// Which session a keyed request made; rebuilt from the logs like every session's row.
const KEYS: &str = "
CREATE TABLE request_key (
    key     TEXT NOT NULL PRIMARY KEY,
    digest  TEXT NOT NULL,
    session TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Which sessions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only those on this repository.
    pub repository: Option<String>,
    /// Only those with this status.
    pub status: Option<SessionStatus>,
}

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
                // As many as the format says, or it does not compile.
                let first = format!("{} {SESSIONS}", pulls::PULLS_MIGRATION);
                let steps: [&str; FORMAT as usize] = [&first, PAGES, KEYS];
                database::open(&path, &steps)
            })??,
        })
    }

    /// Counts one more start of the host and returns its number: the epoch of everything it asks for. It is beyond
    /// `highest`, which somebody else has seen.
    pub async fn next_epoch(&self, highest: u64) -> Result<u64, StoreError> {
        let highest = i64::try_from(highest).unwrap_or(i64::MAX - 1);
        self.thread
            .run(move |connection| {
                let sql = "UPDATE host SET epoch = max(epoch, ?) + 1 RETURNING epoch";
                let epoch = database::write_returning(connection, sql, [highest], |row| row.get::<_, i64>(0));
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

    /// Notes which session a keyed request made. The first one counts.
    pub async fn put_key(&self, request: RequestKey, session: SessionId) -> Result<(), StoreError> {
        self.thread
            .run(move |connection| {
                let sql =
                    "INSERT INTO request_key (key, digest, session) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO NOTHING";
                let changed = connection.execute(sql, params![request.key, request.digest, session.to_string()]);
                changed.map(drop).map_err(query("write the key of a request"))
            })
            .await
    }

    /// The request that came with a key, and the session that it made.
    pub async fn request_of_key(&self, key: String) -> Result<Option<(RequestKey, SessionId)>, StoreError> {
        self.thread
            .run(move |connection| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
                let sql = "SELECT digest, session FROM request_key WHERE key = ?1";
                let found = connection.query_row(sql, [&key], read).optional();
                let Some((digest, session)) = found.map_err(query("read the key of a request"))? else {
                    return Ok(None);
                };
                let session = serde_json::from_value(session.into())
                    .map_err(|source| StoreError::Corrupt { what: "the key of a request".into(), source })?;
                Ok(Some((RequestKey { key, digest }, session)))
            })
            .await
    }

    /// The newest sessions that fit the filter, newest first, at most `limit`, of those older than `before`.
    pub async fn sessions(
        &self,
        filter: SessionFilter,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, StoreError> {
        self.thread
            .run(move |connection| {
                let error = query("list the sessions");
                let status = filter.status.map(status_text).transpose()?;
                let parameters = named_params! {
                    ":before": before.map(|id| id.to_string()),
                    ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
                    ":repository": filter.repository,
                    ":status": status,
                };
                let sql = select_sessions(&filter);
                let mut statement = connection.prepare_cached(&sql).map_err(&error)?;
                let rows = statement.query_map(parameters, |row| row.get::<_, String>(0)).map_err(&error)?;
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

    /// The newest pull requests, newest first, at most `limit`, of those older than `before`.
    pub async fn pull_requests(
        &self,
        before: Option<PullRequestId>,
        limit: usize,
    ) -> Result<Vec<PullRequestView>, StoreError> {
        self.thread.run(move |connection| pulls::list_pulls(connection, before, limit)).await
    }

    /// One pull request.
    pub async fn pull_request(&self, id: PullRequestId) -> Result<Option<PullRequestView>, StoreError> {
        self.thread.run(move |connection| pulls::get_pull(connection, id)).await
    }
}

/// The expressions are those of the index's own indexes. Every parameter occurs, so that one list fits every text.
fn select_sessions(filter: &SessionFilter) -> String {
    let of = |filtered: bool, column: &str, parameter: &str| {
        if filtered {
            format!("json_extract(view, '$.{column}') = {parameter}")
        } else {
            format!("{parameter} IS NULL")
        }
    };
    let repository = of(filter.repository.is_some(), "repository", ":repository");
    let status = of(filter.status.is_some(), "status", ":status");
    // Every id sorts before `~`.
    format!(
        "SELECT view FROM session WHERE id < COALESCE(:before, '~') AND {repository} AND {status}
         ORDER BY id DESC LIMIT :limit"
    )
}

/// A status as a row holds it.
fn status_text(status: SessionStatus) -> Result<String, StoreError> {
    let text = serde_json::to_value(status).map(|value| value.as_str().unwrap_or_default().to_owned());
    text.map_err(|source| StoreError::Corrupt { what: "a status".into(), source })
}

fn read_view(text: &str) -> Result<SessionView, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { what: "a session's row".into(), source })
}

#[cfg(test)]
mod tests {
    use ostler_protocol::event::Person;

    use super::*;

    fn view(repository: &str, status: SessionStatus) -> SessionView {
        SessionView {
            id: SessionId::generate(),
            repository: repository.into(),
            base_branch: "main".into(),
            branch: "ostler/x".into(),
            author: Person { name: "Ada".into(), email: "ada@example.org".into() },
            status,
            model: "scripted/demo".into(),
            title: String::new(),
            head_seq: 1,
            pull_request: None,
            sandboxes_cut_off: 0,
            created_at_ms: 1,
            updated_at_ms: 1,
        }
    }

    fn index() -> (tempfile::TempDir, Index) {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("index.db")).unwrap();
        (folder, index)
    }

    #[tokio::test]
    async fn every_start_has_a_higher_epoch_than_the_ones_before_and_those_that_others_saw() {
        let (_folder, index) = index();
        let mut epochs = Vec::new();
        for highest in [0, 0, 1000, 5, 0, u64::MAX] {
            epochs.push(index.next_epoch(highest).await.unwrap());
        }
        assert_eq!(epochs, [1, 2, 1001, 1002, 1003, i64::MAX as u64]);
    }

    #[tokio::test]
    async fn pages_of_sessions_hold_each_once_though_others_are_made_meanwhile() {
        let (_folder, index) = index();
        let mut made = Vec::new();
        for _ in 0..5 {
            let view = view("demo", SessionStatus::Idle);
            made.push(view.id);
            index.put_session(view).await.unwrap();
        }
        made.sort();
        made.reverse();
        let mut seen: Vec<SessionId> = Vec::new();
        loop {
            let page = index.sessions(SessionFilter::default(), seen.last().copied(), 2).await.unwrap();
            index.put_session(view("demo", SessionStatus::Idle)).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|view| view.id));
        }
        assert_eq!(seen, made);
    }

    #[tokio::test]
    async fn sessions_are_filtered_by_what_they_are_now() {
        let (_folder, index) = index();
        let mut working = view("demo", SessionStatus::Working);
        index.put_session(working.clone()).await.unwrap();
        index.put_session(view("other", SessionStatus::Working)).await.unwrap();
        let filter = SessionFilter { repository: Some("demo".into()), status: Some(SessionStatus::Working) };
        let found = index.sessions(filter.clone(), None, 10).await.unwrap();
        assert_eq!(found, [working.clone()]);
        working.status = SessionStatus::Failed;
        index.put_session(working.clone()).await.unwrap();
        assert_eq!(index.sessions(filter, None, 10).await.unwrap(), []);
        let failed = SessionFilter { status: Some(SessionStatus::Failed), ..SessionFilter::default() };
        assert_eq!(index.sessions(failed, None, 10).await.unwrap(), [working]);
    }

    #[tokio::test]
    async fn a_filtered_page_is_read_from_an_index() {
        let (_folder, index) = index();
        let filters = [
            (SessionFilter { repository: Some("demo".into()), status: None }, "session_by_repository"),
            (SessionFilter { repository: None, status: Some(SessionStatus::Idle) }, "session_by_status"),
        ];
        for (filter, expected) in filters {
            let plan = index.thread.run(move |connection| {
                let sql = format!("EXPLAIN QUERY PLAN {}", select_sessions(&filter));
                let parameters =
                    named_params! { ":before": "ses_", ":limit": 1, ":repository": "a", ":status": "idle" };
                let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(3);
                connection.query_row(&sql, parameters, read).map_err(query("explain"))
            });
            let plan = plan.await.unwrap();
            assert!(plan.contains(expected), "{plan}");
        }
    }
}
