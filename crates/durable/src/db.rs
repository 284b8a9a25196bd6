//! SQLite with one writer: WAL, synchronous=FULL, migrations by `user_version`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use sampan_base::ErrorKind;

/// A database operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite failed.
    #[error("database {action}")]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("the database has layout {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
}

impl sampan_base::Failure for DbError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// An open database.
#[derive(Debug)]
pub struct Db {
    connection: Mutex<Connection>,
}

fn error(action: &'static str) -> impl FnOnce(rusqlite::Error) -> DbError {
    move |source| DbError::Sqlite { action, source }
}

impl Db {
    /// Opens a database and brings it to the newest layout: `migrations[n]` leads from version n to n + 1.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn open(path: &Path, migrations: &[&str]) -> Result<Self, DbError> {
        let mut connection = Connection::open(path).map_err(error("open"))?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(error("configure"))?;
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -2000;";
        connection.execute_batch(settings).map_err(error("configure"))?;
        connection.set_prepared_statement_cache_capacity(64);
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(error("read version"))?;
        let found = found as usize;
        if found > migrations.len() {
            return Err(DbError::Newer { found, known: migrations.len() });
        }
        for (version, migration) in migrations.iter().enumerate().skip(found) {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(error("migrate"))?;
            transaction.execute_batch(migration).map_err(error("migrate"))?;
            transaction.pragma_update(None, "user_version", i64::try_from(version).unwrap_or(0) + 1).map_err(error("migrate"))?;
            transaction.commit().map_err(error("migrate"))?;
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Runs reads on the connection.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn read<T>(&self, action: &'static str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        work(&self.connection.lock().unwrap_or_else(PoisonError::into_inner)).map_err(error(action))
    }

    /// Runs one transaction: all of it is durable when this comes back, or nothing happened.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn write<T>(&self, action: &'static str, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error(action))?;
        let value = work(&transaction).map_err(error(action))?;
        transaction.commit().map_err(error(action))?;
        Ok(value)
    }
    /// Runs one transaction that a killed process does not lose, but a power cut may: it becomes durable with the next
    /// [`Db::write`]. For facts that can be made again.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn write_soon<T>(&self, action: &'static str, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(error(action))?;
        let written = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        connection.execute_batch("PRAGMA synchronous = FULL").map_err(error(action))?;
        written.map_err(error(action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_grow_and_newer_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Db::open(&path, &["CREATE TABLE a (x INTEGER)"]).unwrap());
        let db = Db::open(&path, &["unused", "ALTER TABLE a ADD COLUMN y TEXT"]).unwrap();
        db.write("insert", |transaction| transaction.execute("INSERT INTO a VALUES (1, 'z')", [])).unwrap();
        assert_eq!(db.read("count", |connection| connection.query_row("SELECT y FROM a", [], |row| row.get::<_, String>(0))).unwrap(), "z");
        drop(db);
        assert!(matches!(Db::open(&path, &["one"]), Err(DbError::Newer { found: 2, known: 1 })));
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db"), &["CREATE TABLE a (x INTEGER UNIQUE)"]).unwrap();
        let failed = db.write("insert", |transaction| {
            transaction.execute("INSERT INTO a VALUES (1)", [])?;
            transaction.execute("INSERT INTO a VALUES (1)", [])
        });
        assert!(failed.is_err());
        assert_eq!(
            db.read("count", |connection| connection.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, u32>(0))).unwrap(),
            0
        );
    }
}
