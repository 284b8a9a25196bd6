//! What the registry keeps: facts in SQLite, bytes in files. Blocking; knows no HTTP.
//!
//! ```text
//! DATA/registry.db               every fact and every reference is a row
//! DATA/blobs/ALGO/ab/HEX.GEN     immutable content, 0444; the row names the file
//! DATA/uploads/ID                what has come so far
//! DATA/trash/                    renamed here first, unlinked in the background
//! DATA/lock                      one server for each data root
//! ```
//! A file is durable before its row is written, and a row is gone before its file. What a kill leaves between (a file without a row,
//! an old upload) is swept after the next start.

mod blobs;
mod gc;
mod manifests;
mod schema;
mod uploads;

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _};
use sampan_durable::{Db, Trash};

pub use blobs::Blob;
pub use gc::Swept;
pub use manifests::{PutManifest, StoredManifest};
pub use uploads::{STRANGER, Upload, Writing};

use crate::error::{Code, RegistryError, Result};
use crate::manifest_cache::ManifestCache;

/// How long a blob that nobody refers to is kept after somebody asked for it or brought it.
pub const LEASE: Duration = Duration::from_secs(3600);
/// How long an upload that nobody touches is kept.
pub const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// An open data root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Writes; reads that must see them too may use either.
    writer: Db,
    /// Reads, which never wait for the disk of a writer.
    reader: Db,
    trash: Trash,
    cache: ManifestCache,
    uploads: uploads::Sessions,
    /// How long leases last: shorter in tests.
    lease: Duration,
    _lock: File,
}

/// The database of a data root, for those who only look after users.
///
/// # Errors
/// A failing disk, a newer layout.
pub fn open_database(root: &Path) -> Result<Db> {
    Ok(Db::open(&root.join("registry.db"), schema::MIGRATIONS)?)
}

/// Makes a data root that only its owner can look into, if it is not there.
///
/// # Errors
/// A failing disk.
pub fn make_root(root: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)
}

impl Store {
    /// Opens a data root, and makes it if it is not there.
    ///
    /// # Errors
    /// Another server in it, a newer layout, a failing disk.
    pub fn open(root: &Path, lease: Duration) -> Result<Self> {
        make_root(root)?;
        let Some(lock) = sampan_sys::file::try_lock(&root.join("lock"))? else {
            return Err(RegistryError::say(Code::Unknown, format!("another registry serves {}", root.display())));
        };
        for folder in ["blobs/sha256", "blobs/sha512", "uploads", "trash"] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(folder))?;
        }
        let trash = Trash::open(&root.join("trash"))?;
        let (writer, reader) = (open_database(root)?, open_database(root)?);
        Ok(Self {
            root: root.to_owned(),
            writer,
            reader,
            trash,
            cache: ManifestCache::default(),
            uploads: uploads::Sessions::default(),
            lease,
            _lock: lock,
        })
    }

    /// The connection for reads.
    pub(crate) fn reader(&self) -> &Db {
        &self.reader
    }

    /// Manifests in memory.
    pub(crate) fn cache(&self) -> &ManifestCache {
        &self.cache
    }

    /// Names of repositories with content, behind one, in ASCII order.
    ///
    /// # Errors
    /// A failing database.
    pub fn repositories(&self, last: &str, limit: u32) -> Result<Vec<String>> {
        const QUERY: &str =
            "SELECT name FROM repo WHERE name > ?1 AND EXISTS (SELECT 1 FROM manifest WHERE repo = repo.id) ORDER BY name LIMIT ?2";
        Ok(self.reader.read("list repositories", |connection| {
            connection.prepare_cached(QUERY)?.query_map((last, limit), |row| row.get(0))?.collect()
        })?)
    }

    /// Tags of a repository behind one, in ASCII order.
    ///
    /// # Errors
    /// `NAME_UNKNOWN`; a failing database.
    pub fn tags(&self, repository: &str, last: &str, limit: u32) -> Result<Vec<String>> {
        const QUERY: &str = "SELECT name FROM tag WHERE repo = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
        let tags = self.reader.read("list tags", |connection| {
            let Some(repo) = repo_id(connection, repository)? else { return Ok(None) };
            connection.prepare_cached(QUERY)?.query_map((repo, last, limit), |row| row.get(0))?.collect::<Result<_, _>>().map(Some)
        })?;
        tags.ok_or_else(|| RegistryError::new(Code::NameUnknown).detail(repository))
    }

    /// Blobs and their bytes, manifests, and tags, for figures.
    ///
    /// # Errors
    /// A failing database.
    pub fn totals(&self) -> Result<(u64, u64, u64, u64)> {
        const QUERY: &str = "SELECT (SELECT count(*) FROM blob), (SELECT coalesce(sum(size), 0) FROM blob), (SELECT count(*) FROM manifest), (SELECT count(*) FROM tag)";
        let count = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|number| number.unsigned_abs());
        Ok(self.reader.read("count", |connection| {
            connection.query_row(QUERY, [], |row| Ok((count(row, 0)?, count(row, 1)?, count(row, 2)?, count(row, 3)?)))
        })?)
    }

    /// The end of a lease that begins now.
    fn lease_end(&self) -> i64 {
        now().saturating_add(i64::try_from(self.lease.as_secs()).unwrap_or(i64::MAX))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// Sixteen random bytes in hexadecimal digits.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// The row of a repository.
fn repo_id(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM repo WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// The row of a repository, made if it is not there.
fn ensure_repo(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    if let Some(id) = repo_id(connection, name)? {
        return Ok(id);
    }
    connection.execute("INSERT INTO repo (name) VALUES (?1)", [name])?;
    Ok(connection.last_insert_rowid())
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
