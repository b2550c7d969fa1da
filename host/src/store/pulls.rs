//! Pull requests of the built-in forge: rows of the index.
//!
//! Plain SQL on a connection that the caller owns; every function is one statement and therefore one transaction. Numbers
//! count up from 1 in each repository and are never used again. An open pull request is found again by its natural key,
//! repository and head branch: opening it twice updates it. Does not decide who may open one.

use ostler_protocol::api::{PullRequestState, PullRequestView};
use ostler_protocol::event::Person;
use ostler_protocol::{PullRequestId, SessionId};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Params, Row, named_params};

use super::database;
use super::error::StoreError;

/// The schema of pull requests, for the migrations of the index. To be run once.
pub const PULLS_MIGRATION: &str = "
CREATE TABLE pull_requests (
    id            TEXT NOT NULL PRIMARY KEY,
    repository    TEXT NOT NULL,
    number        INTEGER NOT NULL CHECK (number > 0),
    title         TEXT NOT NULL,
    body          TEXT NOT NULL,
    base          TEXT NOT NULL,
    head          TEXT NOT NULL,
    head_commit   TEXT NOT NULL,
    author_name   TEXT NOT NULL,
    author_email  TEXT NOT NULL,
    session       TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('open', 'merged', 'closed')),
    url           TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    UNIQUE (repository, number)
) STRICT;
CREATE UNIQUE INDEX pull_requests_open_head ON pull_requests (repository, head) WHERE state = 'open';
CREATE INDEX pull_requests_by_time ON pull_requests (created_at_ms DESC, id DESC);
CREATE INDEX pull_requests_by_session ON pull_requests (session);
";

/// A pull request to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPull {
    /// Repository on the forge.
    pub repository: String,
    /// Title.
    pub title: String,
    /// Description.
    pub body: String,
    /// Branch that it wants to be merged into.
    pub base: String,
    /// Branch that it wants merged.
    pub head: String,
    /// Commit of `head`.
    pub head_commit: String,
    /// Person it is opened as.
    pub author: Person,
    /// Session that made it.
    pub session: SessionId,
    /// Address of the host, such as `http://127.0.0.1:7070`; the pull request's own address is made from it.
    pub url_base: String,
    /// Now, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// Whether [`insert_pull`] made a new pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullWrite {
    /// It is new.
    Opened,
    /// An open one for the same repository and head was there and now has the new title, description, base and commit.
    Updated,
}

const COLUMNS: &str = "id, repository, number, title, body, base, head, head_commit, author_name, author_email, session, state, \
                       url, created_at_ms";

/// Opens a pull request under the next number of its repository, or updates the open one for the same repository and
/// head. An update keeps id, number, author, session and time of creation. The address is written when a pull request is
/// opened or updated, for the host as it can be reached then.
pub fn insert_pull(connection: &Connection, pull: &NewPull) -> Result<(PullRequestView, PullWrite), StoreError> {
    let sql = format!(
        "INSERT INTO pull_requests ({COLUMNS}, updated_at_ms)
         SELECT :id, :repository, COALESCE(MAX(number), 0) + 1, :title, :body, :base, :head, :head_commit, :author_name,
                :author_email, :session, 'open', :url_base || :id, :at_ms, :at_ms
         FROM pull_requests WHERE repository = :repository
         ON CONFLICT (repository, head) WHERE state = 'open' DO UPDATE SET
             title = excluded.title, body = excluded.body, base = excluded.base, head_commit = excluded.head_commit,
             url = :url_base || id, updated_at_ms = excluded.updated_at_ms
         RETURNING {COLUMNS}"
    );
    let id = PullRequestId::generate();
    let parameters = named_params! {
        ":id": id.to_string(),
        ":repository": pull.repository,
        ":title": pull.title,
        ":body": pull.body,
        ":base": pull.base,
        ":head": pull.head,
        ":head_commit": pull.head_commit,
        ":author_name": pull.author.name,
        ":author_email": pull.author.email,
        ":session": pull.session.to_string(),
        ":url_base": format!("{}/v1/pull-requests/", pull.url_base),
        ":at_ms": integer(pull.created_at_ms),
    };
    let stored = change(connection, "open a pull request", &sql, parameters)?;
    let stored =
        stored.ok_or(StoreError::Query { operation: "open a pull request", source: Error::QueryReturnedNoRows })?;
    let write = if stored.id == id { PullWrite::Opened } else { PullWrite::Updated };
    Ok((stored, write))
}

/// The newest pull requests, newest first, at most `limit`, of those older than `before`. Their ids tell their age.
pub fn list_pulls(
    connection: &Connection,
    before: Option<PullRequestId>,
    limit: usize,
) -> Result<Vec<PullRequestView>, StoreError> {
    let list = || -> rusqlite::Result<Vec<PullRequestView>> {
        // Every id sorts before `~`.
        let sql = format!(
            "SELECT {COLUMNS} FROM pull_requests WHERE id < COALESCE(:before, '~') ORDER BY id DESC LIMIT :limit"
        );
        let before = before.map(|id| id.to_string());
        let parameters = named_params! { ":before": before, ":limit": i64::try_from(limit).unwrap_or(i64::MAX) };
        connection.prepare_cached(&sql)?.query_map(parameters, read)?.collect()
    };
    list().map_err(|source| StoreError::Query { operation: "list the pull requests", source })
}

/// One pull request; `None` where there is no such one.
pub fn get_pull(connection: &Connection, id: PullRequestId) -> Result<Option<PullRequestView>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM pull_requests WHERE id = :id");
    one(connection, "read a pull request", &sql, named_params! { ":id": id.to_string() })
}

/// The pull request with a number in a repository; `None` where there is no such one.
pub fn get_pull_by_number(
    connection: &Connection,
    repository: &str,
    number: u64,
) -> Result<Option<PullRequestView>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM pull_requests WHERE repository = :repository AND number = :number");
    let parameters = named_params! { ":repository": repository, ":number": integer(number) };
    one(connection, "read a pull request", &sql, parameters)
}

/// Notes that a branch was pushed. Returns the open pull request for it, or `None` where there is none.
pub fn update_head(
    connection: &Connection,
    repository: &str,
    head: &str,
    head_commit: &str,
    at_ms: u64,
) -> Result<Option<PullRequestView>, StoreError> {
    let sql = format!(
        "UPDATE pull_requests SET head_commit = :head_commit, updated_at_ms = :at_ms
         WHERE repository = :repository AND head = :head AND state = 'open' RETURNING {COLUMNS}"
    );
    let parameters = named_params! {
        ":repository": repository,
        ":head": head,
        ":head_commit": head_commit,
        ":at_ms": integer(at_ms),
    };
    change(connection, "move a pull request", &sql, parameters)
}

/// Closes an open pull request, or notes that it was merged. Returns it; `None` where it does not exist or is not open.
/// There is no way back: for more work on the same branch another one is opened.
pub fn end_pull(
    connection: &Connection,
    id: PullRequestId,
    end: PullEnd,
    at_ms: u64,
) -> Result<Option<PullRequestView>, StoreError> {
    let sql = format!(
        "UPDATE pull_requests SET state = :state, updated_at_ms = :at_ms WHERE id = :id AND state = 'open' RETURNING {COLUMNS}"
    );
    let state = match end {
        PullEnd::Merged => "merged",
        PullEnd::Closed => "closed",
    };
    let parameters = named_params! { ":id": id.to_string(), ":state": state, ":at_ms": integer(at_ms) };
    change(connection, "end a pull request", &sql, parameters)
}

/// Runs a change that returns its row.
fn change(
    connection: &Connection,
    operation: &'static str,
    sql: &str,
    parameters: impl Params,
) -> Result<Option<PullRequestView>, StoreError> {
    database::write_returning(connection, sql, parameters, read)
        .map_err(|source| StoreError::Query { operation, source })
}

fn one(
    connection: &Connection,
    operation: &'static str,
    sql: &str,
    parameters: impl Params,
) -> Result<Option<PullRequestView>, StoreError> {
    let row = || connection.prepare_cached(sql)?.query_row(parameters, read).optional();
    row().map_err(|source| StoreError::Query { operation, source })
}

/// How a pull request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// Merged.
    Merged,
    /// Closed without a merge.
    Closed,
}

fn read(row: &Row<'_>) -> rusqlite::Result<PullRequestView> {
    Ok(PullRequestView {
        id: parse(row, 0)?,
        repository: row.get(1)?,
        number: unsigned(row, 2)?,
        title: row.get(3)?,
        body: row.get(4)?,
        base: row.get(5)?,
        head: row.get(6)?,
        head_commit: row.get(7)?,
        author: Person { name: row.get(8)?, email: row.get(9)? },
        session: parse(row, 10)?,
        state: match row.get::<_, String>(11)?.as_str() {
            "open" => PullRequestState::Open,
            "merged" => PullRequestState::Merged,
            "closed" => PullRequestState::Closed,
            other => {
                return Err(Error::FromSqlConversionFailure(11, Type::Text, format!("`{other}` is no state").into()));
            }
        },
        url: row.get(12)?,
        created_at_ms: unsigned(row, 13)?,
    })
}

fn parse<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

/// SQLite has no larger integers; what does not fit is the far future.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(PULLS_MIGRATION).unwrap();
        connection
    }

    fn pull(repository: &str, head: &str, created_at_ms: u64) -> NewPull {
        NewPull {
            repository: repository.into(),
            title: "A title".into(),
            body: "A body".into(),
            base: "main".into(),
            head: head.into(),
            head_commit: "1".repeat(40),
            author: Person { name: "Ada".into(), email: "ada@example.org".into() },
            session: SessionId::generate(),
            url_base: "http://host".into(),
            created_at_ms,
        }
    }

    #[test]
    fn numbers_count_from_one_in_each_repository() {
        let index = index();
        let number = |repository, head, at| insert_pull(&index, &pull(repository, head, at)).unwrap().0.number;
        assert_eq!([number("a", "x", 1), number("a", "y", 2), number("b", "x", 3), number("a", "z", 4)], [1, 2, 1, 3]);
        assert_eq!(get_pull_by_number(&index, "a", 2).unwrap().unwrap().head, "y");
        assert_eq!(get_pull_by_number(&index, "b", 2).unwrap(), None);
    }

    #[test]
    fn opening_the_same_head_again_updates_the_open_one() {
        let index = index();
        let (stored, write) = insert_pull(&index, &pull("a", "x", 1)).unwrap();
        assert_eq!((write, &stored.url), (PullWrite::Opened, &format!("http://host/v1/pull-requests/{}", stored.id)));
        let new = NewPull {
            title: "Better".into(),
            head_commit: "2".repeat(40),
            url_base: "http://new".into(),
            ..pull("a", "x", 9)
        };
        let (updated, write) = insert_pull(&index, &new).unwrap();
        let url = format!("http://new/v1/pull-requests/{}", stored.id);
        let expected = PullRequestView { title: "Better".into(), head_commit: "2".repeat(40), url, ..stored };
        assert_eq!((&updated, write), (&expected, PullWrite::Updated));
        assert_eq!(get_pull(&index, expected.id).unwrap(), Some(updated));
        assert_eq!(list_pulls(&index, None, 9).unwrap(), [expected]);
        // An update does not use up a number.
        assert_eq!(insert_pull(&index, &pull("a", "y", 10)).unwrap().0.number, 2);
    }

    #[test]
    fn an_ended_pull_request_stays_as_it_is_and_its_head_may_have_another() {
        let index = index();
        let first = insert_pull(&index, &pull("a", "x", 1)).unwrap().0;
        let closed = end_pull(&index, first.id, PullEnd::Closed, 2).unwrap().unwrap();
        assert_eq!(closed.state, PullRequestState::Closed);
        assert_eq!(end_pull(&index, first.id, PullEnd::Merged, 3).unwrap(), None);
        assert_eq!(update_head(&index, "a", "x", &"2".repeat(40), 3).unwrap(), None);
        let (second, write) = insert_pull(&index, &pull("a", "x", 4)).unwrap();
        assert_eq!((second.number, write), (2, PullWrite::Opened));
        assert_eq!(get_pull(&index, first.id).unwrap(), Some(closed));
    }

    #[test]
    fn a_push_moves_the_open_pull_request_of_its_branch_only() {
        let index = index();
        insert_pull(&index, &pull("a", "x", 1)).unwrap();
        let other = insert_pull(&index, &pull("b", "x", 1)).unwrap().0;
        let moved = update_head(&index, "a", "x", &"2".repeat(40), 5).unwrap().unwrap();
        assert_eq!(moved.head_commit, "2".repeat(40));
        assert_eq!(get_pull(&index, other.id).unwrap(), Some(other));
        assert_eq!(update_head(&index, "a", "y", &"2".repeat(40), 5).unwrap(), None);
    }

    #[test]
    fn a_list_is_newest_first_and_comes_in_pages() {
        let index = index();
        let mut made = Vec::new();
        for head in ["x", "y", "z"] {
            made.push(insert_pull(&index, &pull("a", head, 1)).unwrap().0.id);
        }
        made.sort();
        made.reverse();
        let page = |before, limit| -> Vec<PullRequestId> {
            list_pulls(&index, before, limit).unwrap().into_iter().map(|pull| pull.id).collect()
        };
        assert_eq!(page(None, 2), made[..2]);
        // Ids of one millisecond are in no order: one that is opened later begins in a later one.
        while PullRequestId::generate().ulid().timestamp_ms() <= made[0].ulid().timestamp_ms() {
            std::hint::spin_loop();
        }
        insert_pull(&index, &pull("b", "x", 9)).unwrap();
        assert_eq!(page(Some(made[1]), 2), made[2..], "one that was opened meanwhile moves nothing");
    }

    #[test]
    fn text_with_quotes_is_kept_as_it_is() {
        let index = index();
        let nasty = "'); DROP TABLE pull_requests; -- \"\u{1f9d1}\n";
        let new = NewPull { title: nasty.into(), body: nasty.into(), ..pull("a", "x", u64::MAX) };
        let (stored, _) = insert_pull(&index, &new).unwrap();
        assert_eq!((stored.title.as_str(), stored.body.as_str()), (nasty, nasty));
    }

    #[test]
    fn a_broken_index_is_an_error_that_says_what_was_tried() {
        let empty = Connection::open_in_memory().unwrap();
        let error = insert_pull(&empty, &pull("a", "x", 1)).unwrap_err();
        assert!(matches!(error, StoreError::Query { operation: "open a pull request", .. }), "{error:?}");
    }
}
