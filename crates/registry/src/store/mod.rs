//! What the registry keeps: a database of names, references and rights, and files of bytes.
//!
//! ```text
//! registry.db                      every fact
//! blobs/ALGORITHM/ab/HEX.GEN       bytes of blobs, never changed, a path is never used again
//! uploads/ID/{data,repository}     uploads under way
//! trash/                           what is being removed
//! tls/ keys/                       certificates made here, the key that signs tokens
//! ```
//! Files before rows for what comes, rows before files for what goes: a row always has its bytes.

mod blobs;
mod manifests;
mod schema;
mod uploads;
mod users;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sampan_durable::{Db, DbError, Trash};

pub(crate) use blobs::BlobFile;
pub(crate) use manifests::{ManifestRow, NewManifest, PutError, Referrer};
pub(crate) use uploads::{Session, TakeError, Uploads};
pub use users::{Role, User};

/// How long a blob that nothing refers to is safe after a client was told of it, seconds.
pub(crate) const LEASE: i64 = 3600;

/// A data root that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("open the registry's data root {path}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another server has it.
    #[error("another registry serves the data root {0}: stop it, or give --data-root another directory")]
    Locked(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl sampan_base::Failure for OpenError {
    fn kind(&self) -> sampan_base::ErrorKind {
        match self {
            Self::Locked(_) => sampan_base::ErrorKind::Conflict,
            _ => sampan_base::ErrorKind::Internal,
        }
    }
}

/// The database of a data root. Both a server and the commands that change users open it.
#[derive(Debug)]
pub struct Meta {
    pub(crate) db: Db,
}

impl Meta {
    /// Opens the database of a data root; makes both if they are not there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        make_folder(root)?;
        let path = root.join("registry.db");
        // Hashes of passwords are in it: nobody else reads it, whatever the mask is.
        let made = std::fs::File::options().append(true).create(true).mode(0o600).open(&path);
        made.map_err(|source| OpenError::Io { path: path.display().to_string(), source })?;
        Ok(Self { db: Db::open(&path, schema::MIGRATIONS)? })
    }

    /// A number that changes when another process has changed the database.
    pub(crate) fn version(&self) -> Result<i64, DbError> {
        self.db.read("look for changes", |connection| connection.query_row("PRAGMA data_version", [], |row| row.get(0)))
    }
}

/// All that a server keeps.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: PathBuf,
    pub(crate) meta: Meta,
    pub(crate) uploads: Uploads,
    trash: Trash,
    _lock: std::fs::File,
}

impl Store {
    /// Opens a data root for a server, alone, and clears what an unclean end left.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let meta = Meta::open(root)?;
        let fail = |source| OpenError::Io { path: root.display().to_string(), source };
        let lock = sampan_sys::file::try_lock(&root.join("lock")).map_err(fail)?;
        let lock = lock.ok_or_else(|| OpenError::Locked(root.display().to_string()))?;
        for folder in ["blobs", "blobs/sha256", "blobs/sha512"] {
            make_folder(&root.join(folder))?;
        }
        let trash = Trash::open(&root.join("trash")).map_err(fail)?;
        let uploads = Uploads::open(&root.join("uploads")).map_err(fail)?;
        let store = Self { root: root.to_owned(), meta, uploads, trash, _lock: lock };
        store.sweep_blobs().map_err(fail)?;
        Ok(store)
    }
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|source| OpenError::Io { path: path.display().to_string(), source })
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// A size as SQLite keeps it.
pub(crate) fn sql_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
