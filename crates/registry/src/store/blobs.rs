//! Blobs: files of bytes under their digest, rows that say which repository may read them, leases, collection.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Transaction, params};
use sampan_durable::DbError;
use sampan_oci::Digest;

use super::{LEASE, Store, now, sql_size};

/// A blob that can be read.
#[derive(Debug)]
pub(crate) struct BlobFile {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

impl Store {
    fn blob_path(&self, digest: &str, generation: i64) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        self.root.join("blobs").join(algorithm).join(hex.get(..2).unwrap_or("00")).join(format!("{hex}.{generation}"))
    }

    /// A blob of a repository. Whoever is told that it is there can count on it for a while.
    pub(crate) fn blob(&self, repo: &str, digest: &Digest) -> Result<Option<BlobFile>, DbError> {
        let query = "SELECT b.generation, b.size, b.lease, EXISTS (SELECT 1 FROM manifest_blobs m WHERE m.digest = b.digest)
            FROM repos r JOIN repo_blobs rb ON rb.repo = r.id JOIN blobs b ON b.digest = rb.digest WHERE r.name = ? AND b.digest = ?";
        let found = self.meta.db.read("find a blob", |connection| {
            let mut statement = connection.prepare_cached(query)?;
            let row =
                |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, bool>(3)?));
            statement.query_row(params![repo, digest.as_str()], row).optional()
        })?;
        let Some((generation, size, lease, is_used)) = found else { return Ok(None) };
        // A write for each look would be slow: one in half a lease, and none for what a manifest holds.
        if !is_used && lease < now() + LEASE / 2 && !self.renew(digest, generation)? {
            return Ok(None);
        }
        Ok(Some(BlobFile { path: self.blob_path(digest.as_str(), generation), size: u64::try_from(size).unwrap_or(0) }))
    }

    fn renew(&self, digest: &Digest, generation: i64) -> Result<bool, DbError> {
        let values = params![now() + LEASE, digest.as_str(), generation];
        let text = "UPDATE blobs SET lease = max(lease, ?) WHERE digest = ? AND generation = ?";
        Ok(self.meta.db.write("extend a lease", |transaction| transaction.execute(text, values))? > 0)
    }

    /// Lets a repository have a blob that another one has (`None`: any other).
    pub(crate) fn mount(&self, repo: &str, digest: &Digest, from: Option<&str>) -> Result<bool, DbError> {
        self.meta.db.write("mount a blob", |transaction| {
            let there: bool = match from {
                Some(from) => transaction.query_row(
                    "SELECT EXISTS (SELECT 1 FROM repos r JOIN repo_blobs b ON b.repo = r.id WHERE r.name = ? AND b.digest = ?)",
                    params![from, digest.as_str()],
                    |row| row.get(0),
                )?,
                None => {
                    transaction.query_row("SELECT EXISTS (SELECT 1 FROM repo_blobs WHERE digest = ?)", params![digest.as_str()], |row| {
                        row.get(0)
                    })?
                }
            };
            if there {
                let repo = repo_id(transaction, repo)?;
                transaction.execute("INSERT OR IGNORE INTO repo_blobs (repo, digest) VALUES (?, ?)", params![repo, digest.as_str()])?;
                transaction.execute("UPDATE blobs SET lease = max(lease, ?) WHERE digest = ?", params![now() + LEASE, digest.as_str()])?;
            }
            Ok(there)
        })
    }

    /// Takes a finished, synced file over as a blob of a repository. When this comes back the blob is durable.
    pub(crate) fn publish(&self, repo: &str, digest: &Digest, file: &Path, size: u64) -> io::Result<()> {
        let text = digest.as_str();
        let known = self.meta.db.read("find a blob", |connection| {
            connection.query_row("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?)", [text], |row| row.get::<_, bool>(0))
        });
        if known.map_err(io::Error::other)? && self.adopt(repo, text).map_err(io::Error::other)? {
            return Ok(());
        }
        let next = "UPDATE generations SET last = last + 1 RETURNING last";
        let generation = self.meta.db.write("next generation", |transaction| transaction.query_row(next, [], |row| row.get::<_, i64>(0)));
        let generation = generation.map_err(io::Error::other)?;
        let place = self.blob_path(text, generation);
        let folder = place.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            std::fs::create_dir_all(folder)?;
            File::open(folder.parent().unwrap_or(&self.root))?.sync_all()?;
        }
        std::fs::hard_link(file, &place)?;
        File::open(folder)?.sync_all()?;
        let inserted = self.meta.db.write("publish a blob", |transaction| {
            let repo = repo_id(transaction, repo)?;
            let values = params![text, generation, sql_size(size), now() + LEASE];
            let is_new =
                transaction.execute("INSERT OR IGNORE INTO blobs (digest, generation, size, lease) VALUES (?, ?, ?, ?)", values)?;
            transaction.execute("UPDATE blobs SET lease = max(lease, ?) WHERE digest = ?", params![now() + LEASE, text])?;
            transaction.execute("INSERT OR IGNORE INTO repo_blobs (repo, digest) VALUES (?, ?)", params![repo, text])?;
            Ok(is_new > 0)
        });
        match inserted {
            Ok(true) => Ok(()),
            // Another upload of the same bytes was first.
            Ok(false) => std::fs::remove_file(&place),
            Err(error) => {
                drop(std::fs::remove_file(&place));
                Err(io::Error::other(error))
            }
        }
    }

    /// Lets a repository have a blob that is here already.
    fn adopt(&self, repo: &str, digest: &str) -> Result<bool, DbError> {
        self.meta.db.write("adopt a blob", |transaction| {
            let there = transaction.execute("UPDATE blobs SET lease = max(lease, ?) WHERE digest = ?", params![now() + LEASE, digest])?;
            if there > 0 {
                let repo = repo_id(transaction, repo)?;
                transaction.execute("INSERT OR IGNORE INTO repo_blobs (repo, digest) VALUES (?, ?)", params![repo, digest])?;
            }
            Ok(there > 0)
        })
    }

    /// Takes a blob out of a repository; its bytes go with the next collection if no other has it.
    pub(crate) fn remove_blob(&self, repo: &str, digest: &Digest) -> Result<bool, DbError> {
        let text = "DELETE FROM repo_blobs WHERE digest = ? AND repo = (SELECT id FROM repos WHERE name = ?)";
        let values = params![digest.as_str(), repo];
        Ok(self.meta.db.write("remove a blob", |transaction| transaction.execute(text, values))? > 0)
    }

    /// Removes blobs that no manifest needs and whose lease was over at `moment`: rows first, then files. Gives count and bytes.
    ///
    /// A manifest names its blobs in the transaction that adds it, so either it comes first and the blob stays, or the blob goes
    /// first and the push is told that it is unknown.
    pub(crate) fn collect(&self, moment: i64) -> Result<(u64, u64), DbError> {
        let unused = "SELECT digest, generation, size FROM blobs WHERE lease < ?
            AND NOT EXISTS (SELECT 1 FROM manifest_blobs m WHERE m.digest = blobs.digest) LIMIT 1000";
        let mut sum = (0, 0);
        loop {
            let gone = self.meta.db.write("collect blobs", |transaction| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
                let gone = transaction.prepare_cached(unused)?.query_map([moment], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
                for (digest, ..) in &gone {
                    transaction.execute("DELETE FROM blobs WHERE digest = ?", [digest])?;
                }
                Ok(gone)
            })?;
            for (digest, generation, size) in &gone {
                if let Err(error) = self.trash.discard(&self.blob_path(digest, *generation)) {
                    tracing::warn!("cannot remove the bytes of {digest}: {error}");
                }
                sum = (sum.0 + 1, sum.1 + u64::try_from(*size).unwrap_or(0));
            }
            if gone.len() < 1000 {
                return Ok(sum);
            }
        }
    }

    /// How many blobs there are, and their bytes.
    pub(crate) fn blob_totals(&self) -> Result<(u64, u64), DbError> {
        self.meta.db.read("count blobs", |connection| {
            connection.query_row("SELECT count(*), coalesce(sum(size), 0) FROM blobs", [], |row| {
                Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
            })
        })
    }

    /// Removes files that no row names: a server was killed between file and row.
    pub(super) fn sweep_blobs(&self) -> io::Result<()> {
        for algorithm in ["sha256", "sha512"] {
            for folder in std::fs::read_dir(self.root.join("blobs").join(algorithm))?.flatten() {
                let rows = self.generations(&format!("{algorithm}:{}", folder.file_name().to_string_lossy())).map_err(io::Error::other)?;
                for entry in std::fs::read_dir(folder.path())?.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if !rows.contains(&name) {
                        self.trash.discard(&entry.path())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// File names of all blobs whose digest begins so.
    fn generations(&self, prefix: &str) -> Result<std::collections::HashSet<String>, DbError> {
        self.meta.db.read("list blobs", |connection| {
            let query = "SELECT digest, generation FROM blobs WHERE digest >= ?1 AND digest < ?1 || 'g'";
            let name = |row: &rusqlite::Row<'_>| {
                let digest: String = row.get(0)?;
                Ok(format!("{}.{}", digest.split(':').nth(1).unwrap_or_default(), row.get::<_, i64>(1)?))
            };
            connection.prepare_cached(query)?.query_map([prefix], name)?.collect()
        })
    }
}

/// The row of a repository, made if it is new.
pub(super) fn repo_id(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    transaction.prepare_cached("INSERT OR IGNORE INTO repos (name) VALUES (?)")?.execute([name])?;
    transaction.prepare_cached("SELECT id FROM repos WHERE name = ?")?.query_row([name], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, repo: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256_of(content);
        let file = store.root.join("uploads/x");
        std::fs::write(&file, content).unwrap();
        store.publish(repo, &digest, &file, content.len() as u64).unwrap();
        std::fs::remove_file(&file).unwrap();
        digest
    }

    #[test]
    fn a_blob_is_seen_where_it_was_put_or_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = put(&store, "a", b"content");
        let file = store.blob("a", &digest).unwrap().unwrap();
        assert_eq!((std::fs::read(&file.path).unwrap(), file.size), (b"content".to_vec(), 7));
        assert!(store.blob("b", &digest).unwrap().is_none(), "another repository does not see it");
        assert!(!store.mount("c", &digest, Some("b")).unwrap());
        assert!(store.mount("b", &digest, Some("a")).unwrap() && store.blob("b", &digest).unwrap().is_some());
        assert!(store.mount("d", &digest, None).unwrap());
        assert!(store.remove_blob("a", &digest).unwrap() && store.blob("a", &digest).unwrap().is_none());
        assert!(store.blob("b", &digest).unwrap().is_some());
    }

    #[test]
    fn what_is_leased_stays_and_the_rest_is_collected() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = put(&store, "a", b"content");
        let path = store.blob("a", &digest).unwrap().unwrap().path;
        assert_eq!(store.collect(now()).unwrap(), (0, 0), "its lease holds");
        assert_eq!(store.collect(now() + 2 * LEASE).unwrap(), (1, 7));
        assert!(!path.exists() && store.blob("a", &digest).unwrap().is_none());
        let again = put(&store, "a", b"content");
        let second = store.blob("a", &again).unwrap().unwrap().path;
        assert_ne!(path, second, "a path is never used again");
    }

    #[test]
    fn a_file_without_a_row_goes_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let kept = put(&store, "a", b"kept");
        let path = store.blob("a", &kept).unwrap().unwrap().path;
        let orphan = path.with_file_name(format!("{}.99", "0".repeat(64)));
        std::fs::write(&orphan, b"x").unwrap();
        assert!(matches!(Store::open(folder.path()), Err(super::super::OpenError::Locked(_))), "one server at a time");
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert!(!orphan.exists() && path.exists() && store.blob("a", &kept).unwrap().is_some());
    }
}
