//! Manifests and tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::{Store, ensure_repo, now, repo_id};
use crate::error::{Code, RegistryError, Result};
use crate::manifest::{Facts, Referrer};
use crate::name::{Digest, Reference};

/// A manifest as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: String,
    /// Its type.
    pub media_type: String,
    /// Its bytes.
    pub body: Bytes,
}

/// A manifest that is to be stored.
#[derive(Debug)]
pub struct PutManifest<'a> {
    /// Where.
    pub repository: &'a str,
    /// The digest of its bytes.
    pub digest: &'a Digest,
    /// Its bytes.
    pub body: &'a [u8],
    /// What it says.
    pub facts: &'a Facts,
    /// Tags that point to it from now on.
    pub tags: &'a [&'a str],
    /// Who brings it.
    pub by: &'a str,
    /// Whether blobs may be missing.
    pub may_lack: bool,
}

const BY_TAG: &str = "SELECT manifest.digest, manifest.media_type, manifest.body FROM repo
    JOIN tag ON tag.repo = repo.id JOIN manifest ON manifest.id = tag.manifest WHERE repo.name = ?1 AND tag.name = ?2";
const BY_DIGEST: &str = "SELECT manifest.digest, manifest.media_type, manifest.body FROM repo
    JOIN manifest ON manifest.repo = repo.id WHERE repo.name = ?1 AND manifest.digest = ?2";

impl Store {
    /// A manifest by tag or digest.
    ///
    /// # Errors
    /// `MANIFEST_UNKNOWN`; a failing database.
    pub fn manifest(&self, repository: &str, reference: &Reference) -> Result<Arc<StoredManifest>> {
        if let Some(found) = self.cache.get(repository, reference.as_str()) {
            return Ok(found);
        }
        let epoch = self.cache.epoch();
        let query = match reference {
            Reference::Tag(_) => BY_TAG,
            Reference::Digest(_) => BY_DIGEST,
        };
        let found = self.reader.read("find manifest", |connection| {
            let mut statement = connection.prepare_cached(query)?;
            let read = |row: &rusqlite::Row<'_>| {
                Ok(StoredManifest { digest: row.get(0)?, media_type: row.get(1)?, body: Bytes::from(row.get::<_, Vec<u8>>(2)?) })
            };
            statement.query_row((repository, reference.as_str()), read).optional()
        })?;
        let found = found.ok_or_else(|| RegistryError::new(Code::ManifestUnknown).detail(reference.as_str()))?;
        let found = Arc::new(found);
        self.cache.put(epoch, repository, reference.as_str(), Arc::clone(&found));
        Ok(found)
    }

    /// Stores a manifest and moves tags to it, all at once.
    ///
    /// # Errors
    /// `MANIFEST_BLOB_UNKNOWN` when a blob is missing; a failing database.
    pub fn put_manifest(&self, put: &PutManifest<'_>) -> Result<()> {
        let end = self.lease_end();
        let missing = self.writer.write("store manifest", |transaction| {
            let repo = ensure_repo(transaction, put.repository)?;
            let (mut blobs, mut wanted) = (Vec::with_capacity(put.facts.blobs.len()), Vec::new());
            for digest in &put.facts.blobs {
                match blob_in(transaction, repo, digest)? {
                    Some(blob) => blobs.push(blob),
                    None if put.may_lack => wanted.push(digest),
                    None => return Ok(Some(digest.clone())),
                }
            }
            let manifest = insert(transaction, repo, put)?;
            for blob in blobs {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO manifest_blob (manifest, blob) VALUES (?1, ?2)")?
                    .execute((manifest, blob))?;
                transaction.prepare_cached("UPDATE blob SET lease_until = max(lease_until, ?2) WHERE id = ?1")?.execute((blob, end))?;
            }
            for digest in wanted {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO manifest_wanted (manifest, digest) VALUES (?1, ?2)")?
                    .execute((manifest, digest.as_str()))?;
            }
            for child in &put.facts.children {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO manifest_child (manifest, digest) VALUES (?1, ?2)")?
                    .execute((manifest, child.as_str()))?;
            }
            for tag in put.tags {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO tag (repo, name, manifest, moved_at) VALUES (?1, ?2, ?3, ?4)")?
                    .execute((repo, tag, manifest, now()))?;
            }
            Ok(None)
        })?;
        self.cache.forget(put.repository);
        match missing {
            Some(digest) => Err(RegistryError::new(Code::ManifestBlobUnknown).detail(digest.as_str())),
            None => Ok(()),
        }
    }

    /// Takes away a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// `MANIFEST_UNKNOWN`; a failing database.
    pub fn delete_manifest(&self, repository: &str, reference: &Reference) -> Result<()> {
        let statement = match reference {
            Reference::Tag(_) => "DELETE FROM tag WHERE repo = ?1 AND name = ?2",
            Reference::Digest(_) => "DELETE FROM manifest WHERE repo = ?1 AND digest = ?2",
        };
        let gone = self.writer.write("delete manifest", |transaction| match repo_id(transaction, repository)? {
            Some(repo) => transaction.execute(statement, (repo, reference.as_str())),
            None => Ok(0),
        })?;
        self.cache.forget(repository);
        if gone == 0 { Err(RegistryError::new(Code::ManifestUnknown).detail(reference.as_str())) } else { Ok(()) }
    }

    /// Manifests about a subject, behind a digest, in the order of digests: at most so many, and one at least of about so many bytes.
    /// Says whether there are more.
    ///
    /// # Errors
    /// A failing database.
    pub fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        kind: Option<&str>,
        last: &str,
        (limit, bytes): (usize, usize),
    ) -> Result<(Vec<Referrer>, bool)> {
        const QUERY: &str =
            "SELECT manifest.media_type, manifest.digest, length(manifest.body), manifest.artifact_type, manifest.annotations
            FROM repo JOIN manifest ON manifest.repo = repo.id
            WHERE repo.name = ?1 AND manifest.subject = ?2 AND manifest.digest > ?3 AND (?4 IS NULL OR manifest.artifact_type = ?4)
            ORDER BY manifest.digest";
        /// What an entry has beside its annotations.
        const REST: usize = 400;
        Ok(self.reader.read("list referrers", |connection| {
            let mut statement = connection.prepare_cached(QUERY)?;
            let mut rows = statement.query((repository, subject.as_str(), last, kind))?;
            let (mut found, mut sum) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let annotations: String = row.get(4)?;
                sum += annotations.len() + REST;
                // One is always given, so that a reader comes to the end.
                if found.len() >= limit || sum > bytes && !found.is_empty() {
                    return Ok((found, true));
                }
                let annotations: BTreeMap<String, String> = serde_json::from_str(&annotations).unwrap_or_default();
                let size = row.get::<_, i64>(2)?.unsigned_abs();
                found.push(Referrer { media_type: row.get(0)?, digest: row.get(1)?, size, artifact_type: row.get(3)?, annotations });
            }
            Ok((found, false))
        })?)
    }
}

fn blob_in(connection: &Connection, repo: i64, digest: &Digest) -> rusqlite::Result<Option<i64>> {
    const QUERY: &str =
        "SELECT blob.id FROM blob JOIN repo_blob ON repo_blob.blob = blob.id WHERE blob.digest = ?2 AND repo_blob.repo = ?1";
    connection.prepare_cached(QUERY)?.query_row((repo, digest.as_str()), |row| row.get(0)).optional()
}

fn insert(transaction: &Transaction<'_>, repo: i64, put: &PutManifest<'_>) -> rusqlite::Result<i64> {
    // The same bytes under another type are served under the new one.
    const INSERT: &str = "INSERT INTO manifest (repo, digest, media_type, artifact_type, subject, annotations, body, pushed_by, pushed_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (repo, digest) DO UPDATE SET media_type = ?3, artifact_type = ?4, pushed_by = ?8, pushed_at = ?9 RETURNING id";
    let annotations = serde_json::to_string(&put.facts.annotations).unwrap_or_else(|_| "{}".to_owned());
    let subject = put.facts.subject.as_ref().map(Digest::as_str);
    transaction.prepare_cached(INSERT)?.query_row(
        (repo, put.digest.as_str(), &put.facts.media_type, &put.facts.artifact_type, subject, annotations, put.body, put.by, now()),
        |row| row.get(0),
    )
}
