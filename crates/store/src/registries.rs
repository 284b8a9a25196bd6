//! What is known of registries: manifests as they came, names by digest, where blobs lie.

use rusqlite::params;
use sampan_durable::DbError;
use sampan_oci::{Digest, ImageId};

use crate::Store;
use crate::layers::{now, parsed};

/// How many places of a blob are remembered.
const MOST_SOURCES: i64 = 32;

/// A manifest or index, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// Of the bytes.
    pub digest: Digest,
    /// Their media type.
    pub media_type: String,
    /// They.
    pub bytes: Vec<u8>,
}

/// A name by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoDigestRow {
    /// The repository in full.
    pub repository: String,
    /// The digest there.
    pub digest: Digest,
    /// What it names.
    pub image: String,
}

impl Store {
    /// The manifests of an image, the newest first.
    ///
    /// # Errors
    /// A failing database.
    pub fn manifests(&self, image: &ImageId) -> Result<Vec<ManifestRow>, DbError> {
        let query = "SELECT digest, media_type, bytes FROM manifests WHERE image = ? ORDER BY rowid DESC";
        self.db.read("list manifests", |connection| {
            connection
                .prepare_cached(query)?
                .query_map([image.to_string()], |row| {
                    Ok(ManifestRow { digest: parsed(row, 0)?, media_type: row.get(1)?, bytes: row.get(2)? })
                })?
                .collect()
        })
    }

    /// Every name by digest, sorted.
    ///
    /// # Errors
    /// A failing database.
    pub fn repo_digests(&self) -> Result<Vec<RepoDigestRow>, DbError> {
        self.db.read("list digests", |connection| {
            connection
                .prepare_cached("SELECT repository, digest, image FROM repo_digests ORDER BY repository, digest")?
                .query_map([], |row| Ok(RepoDigestRow { repository: row.get(0)?, digest: parsed(row, 1)?, image: row.get(2)? }))?
                .collect()
        })
    }

    /// Gives an image a name by digest, and keeps the manifest of that digest where it is given. Nothing happens when the image is
    /// gone.
    ///
    /// # Errors
    /// A failing database.
    pub fn put_repo_digest(
        &self,
        repository: &str,
        digest: &Digest,
        image: &ImageId,
        manifest: Option<&ManifestRow>,
    ) -> Result<(), DbError> {
        self.db.write("write digest", |transaction| {
            let image = image.to_string();
            let name = "INSERT OR REPLACE INTO repo_digests (repository, digest, image) SELECT ?1, ?2, id FROM images WHERE id = ?3";
            transaction.execute(name, params![repository, digest.as_str(), image])?;
            if let Some(manifest) = manifest {
                let bytes =
                    "INSERT OR REPLACE INTO manifests (digest, image, media_type, bytes) SELECT ?1, id, ?3, ?4 FROM images WHERE id = ?2";
                transaction.execute(bytes, params![manifest.digest.as_str(), image, manifest.media_type, manifest.bytes])?;
            }
            Ok(())
        })
    }

    /// Takes a name by digest away.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_repo_digest(&self, repository: &str, digest: &Digest) -> Result<(), DbError> {
        self.db.write("delete digest", |transaction| {
            transaction
                .execute("DELETE FROM repo_digests WHERE repository = ? AND digest = ?", params![repository, digest.as_str()])
                .map(drop)
        })
    }

    /// Remembers that a repository has a blob.
    ///
    /// # Errors
    /// A failing database.
    pub fn put_blob_source(&self, digest: &Digest, repository: &str) -> Result<(), DbError> {
        self.db.write("write blob source", |transaction| {
            let values = params![digest.as_str(), repository, now()];
            transaction.execute("INSERT OR REPLACE INTO blob_sources (digest, repository, seen) VALUES (?, ?, ?)", values)?;
            let oldest = "DELETE FROM blob_sources WHERE digest = ?1 AND rowid NOT IN
                (SELECT rowid FROM blob_sources WHERE digest = ?1 ORDER BY rowid DESC LIMIT ?2)";
            transaction.execute(oldest, params![digest.as_str(), MOST_SOURCES]).map(drop)
        })
    }

    /// The repositories that have a blob, the newest first.
    ///
    /// # Errors
    /// A failing database.
    pub fn blob_sources(&self, digest: &Digest) -> Result<Vec<String>, DbError> {
        self.db.read("list blob sources", |connection| {
            connection
                .prepare_cached("SELECT repository FROM blob_sources WHERE digest = ? ORDER BY rowid DESC")?
                .query_map([digest.as_str()], |row| row.get(0))?
                .collect()
        })
    }

    /// Forgets that a repository has a blob.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_blob_source(&self, digest: &Digest, repository: &str) -> Result<(), DbError> {
        self.db.write("delete blob source", |transaction| {
            transaction
                .execute("DELETE FROM blob_sources WHERE digest = ? AND repository = ?", params![digest.as_str(), repository])
                .map(drop)
        })
    }
}
