//! Removal of what nobody needs, while all goes on: blobs that no manifest names and nobody holds a lease of, uploads that were
//! left, files that have no row.
//!
//! A blob goes in one transaction that looks at references and lease again; a push that counts on it has either taken the lease
//! before, or gets `MANIFEST_BLOB_UNKNOWN` and brings it again, under another file name.

use std::collections::HashSet;
use std::time::SystemTime;

use super::{Store, UPLOAD_AGE, now};
use crate::error::Result;

/// Blobs of one transaction.
const BATCH: u32 = 100;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads.
    pub uploads: usize,
}

impl Store {
    /// Removes what nobody needs; other requests go on between the batches.
    ///
    /// # Errors
    /// A failing disk.
    pub fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept { uploads: self.sweep_uploads(UPLOAD_AGE)?, ..Swept::default() };
        loop {
            let gone = self.collect_batch()?;
            for (object, size) in &gone {
                self.trash.discard(&self.object_path(object))?;
                swept.bytes += size;
            }
            swept.blobs += gone.len();
            if gone.len() < BATCH as usize {
                return Ok(swept);
            }
        }
    }

    fn collect_batch(&self) -> Result<Vec<(String, u64)>> {
        const GONE: &str = "DELETE FROM blob WHERE id IN (
            SELECT id FROM blob WHERE lease_until < ?1 AND NOT EXISTS (SELECT 1 FROM manifest_blob WHERE blob = blob.id) LIMIT ?2
        ) RETURNING object, size";
        Ok(self.writer.write("collect blobs", |transaction| {
            let mut statement = transaction.prepare_cached(GONE)?;
            statement.query_map((now(), BATCH), |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?.collect()
        })?)
    }

    /// Removes files below `blobs/` that have no row and got their name before a moment (the start of this process): what a kill
    /// left. Gives their number.
    ///
    /// # Errors
    /// A failing disk.
    pub fn sweep_files(&self, before: SystemTime) -> Result<usize> {
        let mut removed = 0;
        for algorithm in ["sha256", "sha512"] {
            for shelf in std::fs::read_dir(self.object_path(algorithm))?.flatten() {
                let shelf_name = format!("{algorithm}/{}", shelf.file_name().to_string_lossy());
                let mut names: HashSet<String> = HashSet::new();
                for entry in std::fs::read_dir(shelf.path())?.flatten() {
                    let old = entry.metadata().and_then(|facts| facts.modified()).is_ok_and(|at| at < before);
                    if old {
                        names.insert(format!("{shelf_name}/{}", entry.file_name().to_string_lossy()));
                    }
                }
                removed += self.discard_without_row(names)?;
            }
        }
        Ok(removed)
    }

    fn discard_without_row(&self, mut names: HashSet<String>) -> Result<usize> {
        if names.is_empty() {
            return Ok(0);
        }
        let all: Vec<String> = names.iter().cloned().collect();
        self.reader.read("find objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT count(*) FROM blob WHERE object = ?1")?;
            for name in &all {
                if statement.query_row([name], |row| row.get::<_, i64>(0))? > 0 {
                    names.remove(name);
                }
            }
            Ok(())
        })?;
        for name in &names {
            self.trash.discard(&self.object_path(name))?;
        }
        Ok(names.len())
    }
}
