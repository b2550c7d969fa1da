//! Opening a SQLite file of ours: durable, one writer, with a format that is known.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::error::StoreError;

/// Opens the file, making it where it is new. Each of `steps` brings a file of the format before it to its own, from
/// nothing to format 1 and so on; a file of a format beyond the last one is refused.
pub(super) fn open(path: &Path, steps: &[&str]) -> Result<Connection, StoreError> {
    let error = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(error)?;
    connection.execute_batch("PRAGMA busy_timeout = 5000;").map_err(error)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(error)?;
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if found > known {
        // Before anything is set that is kept in the file.
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(error)?;
    for (format, step) in (1..).zip(steps).filter(|(format, _)| *format > found) {
        // A step and its version are one transaction: a file has one format or the next, nothing between.
        connection.execute_batch(&format!("BEGIN; {step} PRAGMA user_version = {format}; COMMIT;")).map_err(error)?;
    }
    Ok(connection)
}

/// Runs one `… RETURNING …` and gives its first row, once the change is on the disk.
///
/// Without the transaction around it, SQLite commits when the statement is reset, after its row was read, and rusqlite has
/// nobody to tell that this failed: a full disk would look like success.
pub(super) fn write_returning<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    let transaction = connection.unchecked_transaction()?;
    let row = transaction.prepare_cached(sql)?.query_row(parameters, read).optional()?;
    transaction.commit()?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_older_format_is_brought_to_the_newest_with_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let steps = ["CREATE TABLE a (id INTEGER) STRICT;", "ALTER TABLE a ADD COLUMN name TEXT;", "no SQL"];
        open(&path, &steps[..1]).unwrap().execute("INSERT INTO a VALUES (7)", []).unwrap();
        let kept = |steps: &[&str]| {
            let connection = open(&path, steps).unwrap();
            connection.query_row("SELECT id, name FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(kept(&steps[..2]), (7_i64, None::<String>));
        assert!(open(&path, &steps).is_err());
        assert_eq!(kept(&steps[..2]), (7, None), "a step that fails leaves the format before it");
        let newer = open(&path, &steps[..1]).unwrap_err();
        assert!(matches!(newer, StoreError::Newer { found: 2, known: 1, .. }), "{newer:?}");
    }

    #[test]
    fn a_row_that_cannot_be_committed_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);
             CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED) STRICT;";
        connection.execute_batch(schema).unwrap();
        // The constraint is looked at when it is committed, as room on the disk is.
        let sql = "INSERT INTO b VALUES (1) RETURNING a";
        let read = |row: &Row<'_>| row.get::<_, i64>(0);
        assert!(write_returning(&connection, sql, [], read).is_err());
        let left: i64 = connection.query_row("SELECT count(*) FROM b", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
        connection.execute("INSERT INTO a VALUES (1)", []).unwrap();
        assert_eq!(write_returning(&connection, sql, [], read), Ok(Some(1)));
    }
}
