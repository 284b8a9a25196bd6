//! Blobs: which are in which repository, where their bytes lie, leases.

use std::fs::File;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, ensure_repo, now, repo_id};
use crate::error::{Code, RegistryError, Result};
use crate::name::Digest;

/// A blob of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    /// Its file below `blobs/`.
    object: String,
    id: i64,
    lease_until: i64,
}

const IN_REPO: &str = "SELECT blob.id, blob.size, blob.object, blob.lease_until FROM repo
    JOIN repo_blob ON repo_blob.repo = repo.id JOIN blob ON blob.id = repo_blob.blob WHERE repo.name = ?1 AND blob.digest = ?2";

fn find(connection: &Connection, repository: &str, digest: &Digest) -> rusqlite::Result<Option<Blob>> {
    let mut statement = connection.prepare_cached(IN_REPO)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Blob { id: row.get(0)?, size: row.get::<_, i64>(1)?.unsigned_abs(), object: row.get(2)?, lease_until: row.get(3)? })
    };
    statement.query_row((repository, digest.as_str()), read).optional()
}

impl Store {
    /// A blob of a repository.
    ///
    /// # Errors
    /// `BLOB_UNKNOWN`; a failing database.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Result<Blob> {
        let found = self.reader.read("find blob", |connection| find(connection, repository, digest))?;
        found.ok_or_else(|| RegistryError::new(Code::BlobUnknown).detail(digest.as_str()))
    }

    /// The same for somebody who may build on the answer: the blob will stay for a while. A lease that is fresh costs no write.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn blob_with_lease(&self, repository: &str, digest: &Digest) -> Result<Blob> {
        let found = self.blob(repository, digest)?;
        let half = i64::try_from(self.lease.as_secs() / 2).unwrap_or(i64::MAX);
        if found.lease_until > now().saturating_add(half) {
            return Ok(found);
        }
        let end = self.lease_end();
        // It may have gone since it was read: the answer is that of this transaction.
        let kept = self.writer.write("extend lease", |transaction| {
            let Some(blob) = find(transaction, repository, digest)? else { return Ok(None) };
            transaction.execute("UPDATE blob SET lease_until = max(lease_until, ?2) WHERE id = ?1", (blob.id, end))?;
            Ok(Some(blob))
        })?;
        kept.ok_or_else(|| RegistryError::new(Code::BlobUnknown).detail(digest.as_str()))
    }

    /// Opens the file of a blob.
    ///
    /// # Errors
    /// `BLOB_UNKNOWN` when it was collected since; a failing disk.
    pub fn open_blob(&self, blob: &Blob) -> Result<File> {
        File::open(self.object_path(&blob.object)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RegistryError::new(Code::BlobUnknown),
            _ => error.into(),
        })
    }

    pub(super) fn object_path(&self, object: &str) -> PathBuf {
        self.root.join("blobs").join(object)
    }

    /// Takes a blob out of a repository. Its bytes go when nothing refers to them.
    ///
    /// # Errors
    /// `BLOB_UNKNOWN`; a failing database.
    pub fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<()> {
        let gone = self.writer.write("delete blob", |transaction| {
            let (Some(repo), Some(blob)) = (repo_id(transaction, repository)?, find(transaction, repository, digest)?) else {
                return Ok(0);
            };
            transaction.execute("DELETE FROM repo_blob WHERE repo = ?1 AND blob = ?2", (repo, blob.id))
        })?;
        if gone == 0 { Err(RegistryError::new(Code::BlobUnknown).detail(digest.as_str())) } else { Ok(()) }
    }

    /// Puts a blob that another repository has into this one; `may_read` says from which ones. Says whether it was there.
    ///
    /// # Errors
    /// A failing database.
    pub fn mount(&self, repository: &str, digest: &Digest, from: Option<&str>, may_read: impl Fn(&str) -> bool) -> Result<bool> {
        const SOURCES: &str = "SELECT repo.name FROM blob JOIN repo_blob ON repo_blob.blob = blob.id JOIN repo ON repo.id = repo_blob.repo
            WHERE blob.digest = ?1 AND (?2 IS NULL OR repo.name = ?2) LIMIT 1000";
        let end = self.lease_end();
        Ok(self.writer.write("mount blob", |transaction| {
            let mut statement = transaction.prepare_cached(SOURCES)?;
            let sources: Vec<String> = statement.query_map((digest.as_str(), from), |row| row.get(0))?.collect::<Result<_, _>>()?;
            let Some(source) = sources.iter().find(|source| may_read(source)) else { return Ok(false) };
            let Some(blob) = find(transaction, source, digest)? else { return Ok(false) };
            link(transaction, repository, blob.id, end)?;
            Ok(true)
        })?)
    }

    /// Puts a blob whose bytes are here already into a repository; says whether they were.
    pub(super) fn adopt(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let end = self.lease_end();
        Ok(self.writer.write("adopt blob", |transaction| adopt(transaction, repository, digest, end))?)
    }

    /// Writes the row of bytes that are durable under a name; says whether that name is the one in use.
    pub(super) fn publish(&self, repository: &str, digest: &Digest, size: u64, object: &str) -> Result<bool> {
        let end = self.lease_end();
        Ok(self.writer.write("publish blob", |transaction| {
            if adopt(transaction, repository, digest, end)? {
                return Ok(false);
            }
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            let insert = "INSERT INTO blob (digest, size, object, lease_until) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(insert, (digest.as_str(), size, object, end))?;
            link(transaction, repository, transaction.last_insert_rowid(), end)?;
            Ok(true)
        })?)
    }
}

fn adopt(connection: &Connection, repository: &str, digest: &Digest, end: i64) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT id FROM blob WHERE digest = ?1")?;
    let Some(blob) = statement.query_row([digest.as_str()], |row| row.get(0)).optional()? else { return Ok(false) };
    link(connection, repository, blob, end)?;
    Ok(true)
}

fn link(connection: &Connection, repository: &str, blob: i64, end: i64) -> rusqlite::Result<()> {
    // Manifests that came before their blobs hold them from now on.
    const HOLD: &str = "INSERT OR IGNORE INTO manifest_blob (manifest, blob) SELECT manifest.id, ?2 FROM manifest_wanted
        JOIN manifest ON manifest.id = manifest_wanted.manifest
        WHERE manifest.repo = ?1 AND manifest_wanted.digest = (SELECT digest FROM blob WHERE id = ?2)";
    let repo = ensure_repo(connection, repository)?;
    connection.execute("INSERT OR IGNORE INTO repo_blob (repo, blob) VALUES (?1, ?2)", (repo, blob))?;
    connection.prepare_cached(HOLD)?.execute((repo, blob))?;
    connection.execute("UPDATE blob SET lease_until = max(lease_until, ?2) WHERE id = ?1", (blob, end))?;
    Ok(())
}
