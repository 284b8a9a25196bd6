//! Manifests and tags: exact bytes, what they need, who refers to whom.

use rusqlite::{OptionalExtension as _, Transaction, params};
use sampan_durable::DbError;
use sampan_oci::Digest;

use super::blobs::repo_id;
use super::{Store, now};
use crate::route::Target;

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
}

/// A manifest to add.
#[derive(Debug)]
pub(crate) struct NewManifest<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) media_type: &'a str,
    pub(crate) artifact_type: &'a str,
    pub(crate) subject: Option<&'a str>,
    /// JSON object.
    pub(crate) annotations: Option<&'a str>,
    /// Blobs that must be there.
    pub(crate) blobs: &'a [String],
    pub(crate) body: &'a [u8],
    pub(crate) tags: &'a [String],
}

/// Why a manifest was not added.
#[derive(Debug)]
pub(crate) enum PutError {
    /// The repository does not have this blob.
    Missing(String),
    Db(DbError),
}

/// What refers to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referrer {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) size: i64,
    pub(crate) artifact_type: String,
    pub(crate) annotations: Option<String>,
}

impl Store {
    /// Adds a manifest and moves tags to it, all or nothing.
    pub(crate) fn put_manifest(&self, repo: &str, manifest: &NewManifest<'_>) -> Result<(), PutError> {
        let mut missing = None;
        let added = self.meta.db.write("add a manifest", |transaction| {
            let repo = repo_id(transaction, repo)?;
            for blob in manifest.blobs {
                let there = "SELECT EXISTS (SELECT 1 FROM repo_blobs WHERE repo = ? AND digest = ?)";
                if !transaction.prepare_cached(there)?.query_row(params![repo, blob], |row| row.get::<_, bool>(0))? {
                    missing = Some(blob.clone());
                    // Rolls everything back.
                    return Err(rusqlite::Error::QueryReturnedNoRows);
                }
            }
            insert(transaction, repo, manifest)
        });
        match (missing, added) {
            (Some(blob), _) => Err(PutError::Missing(blob)),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(PutError::Db(error)),
        }
    }

    /// A manifest by tag or digest.
    pub(crate) fn manifest(&self, repo: &str, target: &Target) -> Result<Option<ManifestRow>, DbError> {
        let row = |row: &rusqlite::Row<'_>| Ok(ManifestRow { digest: row.get(0)?, media_type: row.get(1)?, body: row.get(2)? });
        let (query, key) = match target {
            Target::Tag(tag) => (
                "SELECT m.digest, m.media_type, m.body FROM repos r JOIN tags t ON t.repo = r.id JOIN manifests m ON m.id = t.manifest
                 WHERE r.name = ? AND t.name = ?",
                tag.as_str(),
            ),
            Target::Digest(digest) => (
                "SELECT m.digest, m.media_type, m.body FROM repos r JOIN manifests m ON m.repo = r.id WHERE r.name = ? AND m.digest = ?",
                digest.as_str(),
            ),
        };
        self.meta.db.read("find a manifest", |connection| connection.prepare_cached(query)?.query_row([repo, key], row).optional())
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(crate) fn remove_manifest(&self, repo: &str, target: &Target) -> Result<bool, DbError> {
        let (text, key) = match target {
            Target::Tag(tag) => ("DELETE FROM tags WHERE repo = (SELECT id FROM repos WHERE name = ?) AND name = ?", tag.as_str()),
            Target::Digest(digest) => {
                ("DELETE FROM manifests WHERE repo = (SELECT id FROM repos WHERE name = ?) AND digest = ?", digest.as_str())
            }
        };
        Ok(self.meta.db.write("remove a manifest", |transaction| transaction.execute(text, [repo, key]))? > 0)
    }

    /// Tags after `last`, in ASCII order, at most `count`; `None` for a repository that is not there.
    pub(crate) fn tags(&self, repo: &str, last: &str, count: i64) -> Result<Option<Vec<String>>, DbError> {
        self.meta.db.read("list tags", |connection| {
            let id = connection.prepare_cached("SELECT id FROM repos WHERE name = ? AND (EXISTS (SELECT 1 FROM manifests m WHERE m.repo = repos.id) OR EXISTS (SELECT 1 FROM repo_blobs b WHERE b.repo = repos.id))")?;
            let mut id = id;
            let Some(id) = id.query_row([repo], |row| row.get::<_, i64>(0)).optional()? else { return Ok(None) };
            let query = "SELECT name FROM tags WHERE repo = ? AND name > ? ORDER BY name LIMIT ?";
            connection.prepare_cached(query)?.query_map(params![id, last, count], |row| row.get(0))?.collect::<Result<_, _>>().map(Some)
        })
    }

    /// Repositories with something in them after `last`, at most `count`.
    pub(crate) fn repositories(&self, last: &str, count: i64) -> Result<Vec<String>, DbError> {
        let query =
            "SELECT name FROM repos WHERE name > ? AND EXISTS (SELECT 1 FROM manifests m WHERE m.repo = repos.id) ORDER BY name LIMIT ?";
        self.meta.db.read("list repositories", |connection| {
            connection.prepare_cached(query)?.query_map(params![last, count], |row| row.get(0))?.collect()
        })
    }

    /// What refers to a digest, after the row `after`, oldest first; each with its row.
    pub(crate) fn referrers(
        &self,
        repo: &str,
        subject: &str,
        artifact_type: Option<&str>,
        after: i64,
        count: i64,
    ) -> Result<Vec<(i64, Referrer)>, DbError> {
        let query = "SELECT m.id, m.digest, m.media_type, length(m.body), m.artifact_type, m.annotations
             FROM repos r JOIN manifests m ON m.repo = r.id
             WHERE r.name = ?1 AND m.subject = ?2 AND m.id > ?4 AND (?3 IS NULL OR m.artifact_type = ?3) ORDER BY m.id LIMIT ?5";
        let row = |row: &rusqlite::Row<'_>| {
            let referrer = Referrer {
                digest: row.get(1)?,
                media_type: row.get(2)?,
                size: row.get(3)?,
                artifact_type: row.get(4)?,
                annotations: row.get(5)?,
            };
            Ok((row.get(0)?, referrer))
        };
        self.meta.db.read("list referrers", |connection| {
            connection.prepare_cached(query)?.query_map(params![repo, subject, artifact_type, after, count], row)?.collect()
        })
    }
}

fn insert(transaction: &Transaction<'_>, repo: i64, manifest: &NewManifest<'_>) -> rusqlite::Result<()> {
    let digest = manifest.digest.as_str();
    let known: Option<i64> = transaction
        .prepare_cached("SELECT id FROM manifests WHERE repo = ? AND digest = ?")?
        .query_row(params![repo, digest], |row| row.get(0))
        .optional()?;
    let id = match known {
        // The same bytes may come under another type.
        Some(id) => {
            transaction.execute("UPDATE manifests SET media_type = ? WHERE id = ?", params![manifest.media_type, id])?;
            id
        }
        None => {
            let text = "INSERT INTO manifests (repo, digest, media_type, artifact_type, subject, annotations, body, pushed)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
            let values = params![
                repo,
                digest,
                manifest.media_type,
                manifest.artifact_type,
                manifest.subject,
                manifest.annotations,
                manifest.body,
                now()
            ];
            transaction.execute(text, values)?;
            transaction.last_insert_rowid()
        }
    };
    for blob in manifest.blobs {
        transaction.prepare_cached("INSERT OR IGNORE INTO manifest_blobs (manifest, digest) VALUES (?, ?)")?.execute(params![id, blob])?;
    }
    for tag in manifest.tags {
        let text = "INSERT INTO tags (repo, name, manifest) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET manifest = excluded.manifest";
        transaction.prepare_cached(text)?.execute(params![repo, tag, id])?;
    }
    Ok(())
}
