//! The data root: its lock, its version, its folders, its database.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sampan_base::ErrorKind;
use sampan_durable::{Db, DbError, Trash, write_atomic};
use sampan_sys::file;

/// The layout that this program writes.
const VERSION: &str = "1";

/// Steps of the database's layout; only ever appended to.
const MIGRATIONS: &[&str] = &[
    "CREATE TABLE layers (
        diff_id TEXT PRIMARY KEY, generation INTEGER NOT NULL, boot TEXT NOT NULL, size INTEGER NOT NULL, content INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE images (id TEXT PRIMARY KEY, config BLOB NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL, tagged INTEGER NOT NULL) STRICT;
     CREATE TABLE image_layers (image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL, diff_id TEXT NOT NULL,
        PRIMARY KEY (image, position)) STRICT;
     CREATE INDEX image_layers_by_layer ON image_layers(diff_id);
     CREATE TABLE tags (reference TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id)) STRICT;
     CREATE TABLE parents (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE, parent TEXT NOT NULL) STRICT;
     CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, state TEXT NOT NULL, image TEXT) STRICT;
     CREATE TABLE volumes (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
     CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
     CREATE TABLE generations (last INTEGER NOT NULL) STRICT;
     INSERT INTO generations VALUES (0);",
    "CREATE TABLE layer_blobs (diff_id TEXT NOT NULL REFERENCES layers(diff_id) ON DELETE CASCADE, digest TEXT NOT NULL,
        media_type TEXT NOT NULL, size INTEGER NOT NULL, kept INTEGER NOT NULL, PRIMARY KEY (diff_id, digest)) STRICT;
     CREATE INDEX layer_blobs_by_digest ON layer_blobs(digest);
     CREATE TABLE manifests (digest TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, media_type TEXT NOT NULL,
        bytes BLOB NOT NULL, PRIMARY KEY (digest, image)) STRICT;
     CREATE INDEX manifests_by_image ON manifests(image);
     CREATE TABLE repo_digests (repository TEXT NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        PRIMARY KEY (repository, digest)) STRICT;
     CREATE INDEX repo_digests_by_image ON repo_digests(image);
     CREATE TABLE blob_sources (digest TEXT NOT NULL, repository TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (digest, repository)) STRICT;
     CREATE TABLE leases (owner TEXT NOT NULL, diff_id TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (owner, diff_id)) STRICT;
     CREATE INDEX leases_by_layer ON leases(diff_id);",
    "CREATE TABLE build_cache (key TEXT PRIMARY KEY, place TEXT NOT NULL, text TEXT NOT NULL, parts TEXT NOT NULL, image TEXT NOT NULL,
        tree TEXT NOT NULL, layer TEXT NOT NULL, size INTEGER NOT NULL, created TEXT NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL,
        result INTEGER NOT NULL) STRICT;
     CREATE INDEX build_cache_by_place ON build_cache(place);
     CREATE INDEX build_cache_by_image ON build_cache(image);
     ALTER TABLE layers ADD COLUMN durable INTEGER NOT NULL DEFAULT 1;",
];

/// How long what an unfinished download left behind waits for the next try.
pub const RESUMABLE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Names of partial downloads in `ingest` begin so.
const PARTIAL: &str = "blob-";

/// A data root that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error("another daemon uses the data root {0}: stop it, or give --data-root another directory")]
    Locked(String),
    /// A newer program wrote it.
    #[error("the data root {path} has layout {found}, this program knows {VERSION}: use the newer program")]
    Newer {
        /// Where.
        path: String,
        /// Which.
        found: String,
    },
    /// The disk failed.
    #[error("open data root {path}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl sampan_base::Failure for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        }
    }
}

/// An open data root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) db: Db,
    trash: Trash,
    boot: String,
    pub(crate) syncer: crate::layers::Syncer,
    _lock: File,
}

impl Store {
    /// Opens a data root, makes it if it is new, and clears what an unclean end left.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: root.display().to_string(), source };
        make_folder(root).map_err(fail)?;
        let lock = file::try_lock(&root.join("lock")).map_err(fail)?.ok_or_else(|| OpenError::Locked(root.display().to_string()))?;
        let version = root.join("VERSION");
        match std::fs::read_to_string(&version) {
            Ok(found) if found.trim() == VERSION => {}
            Ok(found) => return Err(OpenError::Newer { path: root.display().to_string(), found: found.trim().to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_atomic(&version, VERSION.as_bytes()).map_err(fail)?,
            Err(error) => return Err(fail(error)),
        }
        for folder in ["bin", "blobs", "layers", "containers", "volumes", "ingest"] {
            make_folder(&root.join(folder)).map_err(fail)?;
        }
        let trash = Trash::open(&root.join("trash")).map_err(fail)?;
        let db = Db::open(&root.join("meta.db"), MIGRATIONS)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(fail)?.trim().to_owned();
        let store = Self { root: root.to_owned(), db, trash, boot, syncer: crate::layers::Syncer::default(), _lock: lock };
        store.sweep()?;
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// This boot of the machine.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Takes a file or tree away: renamed at once, unlinked in the background.
    ///
    /// # Errors
    /// A failing disk.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        self.trash.discard(path)
    }

    /// A fresh folder for an operation's unfinished files, on the same file system as all others.
    ///
    /// # Errors
    /// A failing disk.
    pub fn staging(&self) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = self.root.join("ingest").join(hex::encode(random));
        make_folder(&path)?;
        Ok(path)
    }

    /// Where the partial download of a blob lies, for which a config promised a layer: it survives cancellation and a restart.
    #[must_use]
    pub fn partial(&self, digest: &sampan_oci::Digest, layer: &sampan_oci::DiffId) -> PathBuf {
        // A long digest would make too long a name.
        let (hex, end) = (digest.hex(), layer.0.short());
        self.root.join("ingest").join(format!("{PARTIAL}{}-{}-{end}", digest.algorithm(), hex.get(..64).unwrap_or(hex)))
    }

    /// Removes partial downloads that nobody went on with.
    ///
    /// # Errors
    /// A failing disk.
    pub fn sweep_partials(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.join("ingest"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) && !is_fresh_partial(&entry) {
                self.discard(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A remembered fact of this data root.
    ///
    /// # Errors
    /// A failing database.
    pub fn fact(&self, key: &str) -> Result<Option<String>, DbError> {
        use rusqlite::OptionalExtension as _;
        self.db.read("read fact", |connection| {
            connection.query_row("SELECT value FROM facts WHERE key = ?", [key], |row| row.get(0)).optional()
        })
    }

    /// Remembers a fact.
    ///
    /// # Errors
    /// A failing database.
    pub fn set_fact(&self, key: &str, value: &str) -> Result<(), DbError> {
        self.db.write("write fact", |transaction| transaction.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [key, value]).map(drop))
    }

    /// The folder of a volume.
    #[must_use]
    pub fn volume_folder(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// Volumes: removals go on, and what has no row and holds nothing was never made. What holds something and has no row is
    /// left alone: it may be all that is left of a lost database.
    fn finish_removals(&self) -> io::Result<()> {
        for name in self.leaving_volumes().map_err(io::Error::other)? {
            self.discard(&self.volume_folder(&name))?;
            self.forget_volume(&name).map_err(io::Error::other)?;
        }
        for entry in std::fs::read_dir(self.root.join("volumes"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.volume(&name).map_err(io::Error::other)?.is_some() {
                continue;
            }
            // Both fail where something is inside.
            drop(std::fs::remove_dir(entry.path().join("_data")));
            if std::fs::remove_dir(entry.path()).is_err() {
                tracing::warn!(folder = %entry.path().display(), "a folder of a volume that is not known stays");
            }
        }
        Ok(())
    }

    /// After a start: unfinished work goes, layers that an unclean boot may have damaged go, folders without a row go.
    fn sweep(&self) -> Result<(), OpenError> {
        let fail = |source| OpenError::Io { path: self.root.display().to_string(), source };
        for entry in std::fs::read_dir(self.root.join("ingest")).map_err(fail)?.flatten() {
            if !is_fresh_partial(&entry) {
                self.discard(&entry.path()).map_err(fail)?;
            }
        }
        self.shorten_leases()?;
        self.finish_removals().map_err(fail)?;
        self.drop_unsettled()?;
        // Published, and then the image they were for was not.
        self.collect_layers()?;
        let known: std::collections::HashSet<PathBuf> = self.layers()?.into_iter().map(|layer| self.layer_folder(&layer)).collect();
        for entry in std::fs::read_dir(self.root.join("layers")).map_err(fail)?.flatten() {
            if !known.contains(&entry.path()) {
                self.discard(&entry.path()).map_err(fail)?;
            }
        }
        let containers: std::collections::HashSet<String> = self.containers()?.into_iter().map(|row| row.id).collect();
        for entry in std::fs::read_dir(self.root.join("containers")).map_err(fail)?.flatten() {
            if !containers.contains(entry.file_name().to_string_lossy().as_ref()) {
                self.discard(&entry.path()).map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// Whether it is a partial download that somebody may still go on with.
fn is_fresh_partial(entry: &std::fs::DirEntry) -> bool {
    let age = entry.metadata().ok().filter(std::fs::Metadata::is_file).and_then(|facts| facts.modified().ok()?.elapsed().ok());
    entry.file_name().to_string_lossy().starts_with(PARTIAL) && age.is_some_and(|age| age < RESUMABLE)
}

fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o710).create(path)
}
