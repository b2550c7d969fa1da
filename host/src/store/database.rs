//! Opening a SQLite file of ours: durable, one writer, with a format that is known.

use std::path::Path;

use rusqlite::Connection;

use super::error::StoreError;

/// Opens the file, making it with `schema` where it is new. `schema` sets `PRAGMA user_version` to a format of at most
/// `known`; a file of a newer format is refused.
pub(super) fn open(path: &Path, known: i64, schema: &str) -> Result<Connection, StoreError> {
    let error = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(error)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")
        .map_err(error)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(error)?;
    match found {
        // The schema and its version are one transaction: a file is either new or whole.
        0 => connection.execute_batch(&format!("BEGIN; {schema} COMMIT;")).map_err(error)?,
        found if found > known => return Err(StoreError::Newer { path: path.to_owned(), found, known }),
        _ => {}
    }
    Ok(connection)
}
