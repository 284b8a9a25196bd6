//! Layers: a row for each unpacked tree.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::{OptionalExtension as _, Row};
use sampan_durable::DbError;
use sampan_oci::{DiffId, Digest};

use crate::Store;

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRow {
    /// Which.
    pub diff_id: DiffId,
    /// Part of its path.
    pub generation: i64,
    /// Bytes of its tar.
    pub size: u64,
    /// Bytes of its files.
    pub content: u64,
}

/// A compressed form of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Of the bytes as registries hold them.
    pub digest: Digest,
    /// Their media type.
    pub media_type: String,
    /// How many.
    pub size: u64,
    /// Whether they lie in the layer's folder, as `blob`.
    pub kept: bool,
}

/// The blob that a layer came in; it lies in the staged folder as `blob`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBlob {
    /// Of the bytes as registries hold them.
    pub digest: Digest,
    /// Their media type.
    pub media_type: String,
    /// How many.
    pub size: u64,
}

fn row(row: &Row<'_>) -> rusqlite::Result<LayerRow> {
    let diff_id: String = row.get(0)?;
    let diff_id =
        diff_id.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))?;
    let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(LayerRow { diff_id, generation: row.get(1)?, size: bytes(row.get(2)?), content: bytes(row.get(3)?) })
}

const COLUMNS: &str = "SELECT diff_id, generation, size, content FROM layers";

impl Store {
    /// Every layer.
    ///
    /// # Errors
    /// A failing database.
    pub fn layers(&self) -> Result<Vec<LayerRow>, DbError> {
        self.db.read("list layers", |connection| connection.prepare_cached(COLUMNS)?.query_map([], row)?.collect())
    }

    /// One layer, if it is here.
    ///
    /// # Errors
    /// A failing database.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<LayerRow>, DbError> {
        let query = format!("{COLUMNS} WHERE diff_id = ?");
        self.db.read("find layer", |connection| connection.prepare_cached(&query)?.query_row([diff_id.to_string()], row).optional())
    }

    /// The folder of a layer: `fs` below it is the tree; `tar` is its exact archive, or `blob` that archive as it came, compressed.
    /// Without either the tree packed anew is the archive.
    #[must_use]
    pub fn layer_folder(&self, layer: &LayerRow) -> PathBuf {
        self.root().join("layers").join(format!("{}.{}", layer.diff_id.0.hex(), layer.generation))
    }

    /// Publishes a finished layer: `staged` (with `fs`, and `tar` if it is kept) gets its place, durably, then its row. One that
    /// came first stays, and `staged` is discarded.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn publish_layer(&self, diff_id: &DiffId, staged: &Path, size: u64, content: u64) -> io::Result<LayerRow> {
        self.publish(diff_id, staged, (size, content), None)
    }

    /// Publishes a layer that came as a blob, which lies in `staged` as `blob`.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn publish_pulled_layer(&self, diff_id: &DiffId, staged: &Path, sizes: (u64, u64), blob: &NewBlob) -> io::Result<LayerRow> {
        self.publish(diff_id, staged, sizes, Some(blob))
    }

    fn publish(&self, diff_id: &DiffId, staged: &Path, (size, content): (u64, u64), blob: Option<&NewBlob>) -> io::Result<LayerRow> {
        if let Some(present) = self.layer(diff_id).map_err(io::Error::other)? {
            self.discard(staged)?;
            return Ok(present);
        }
        self.syncer.sync(&File::open(staged)?)?;
        let generation = self.db.write("next generation", |transaction| {
            transaction.query_row("UPDATE generations SET last = last + 1 RETURNING last", [], |row| row.get::<_, i64>(0))
        });
        let layer = LayerRow { diff_id: diff_id.clone(), generation: generation.map_err(io::Error::other)?, size, content };
        let folder = self.layer_folder(&layer);
        std::fs::rename(staged, &folder)?;
        File::open(self.root().join("layers"))?.sync_all()?;
        let inserted = self.db.write("publish layer", |transaction| insert(transaction, &layer, self.boot(), blob));
        if inserted.is_err() {
            self.discard(&folder)?;
        }
        match inserted.map_err(io::Error::other)? {
            0 => {
                self.discard(&folder)?;
                self.layer(diff_id).map_err(io::Error::other)?.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            _ => Ok(layer),
        }
    }

    /// Publishes a finished layer of a build without waiting for the disk: a killed process does not lose it, after a power cut it
    /// is gone with what was built on it. [`Store::settle_layers`] makes it durable.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn publish_built_layer(&self, diff_id: &DiffId, staged: &Path, (size, content): (u64, u64)) -> io::Result<LayerRow> {
        if let Some(present) = self.layer(diff_id).map_err(io::Error::other)? {
            self.discard(staged)?;
            return Ok(present);
        }
        let mut layer = LayerRow { diff_id: diff_id.clone(), generation: 0, size, content };
        let mut renamed = Ok(());
        let made = self.db.write_soon("publish layer", |transaction| {
            layer.generation =
                transaction.query_row("UPDATE generations SET last = last + 1 RETURNING last", [], |row| row.get::<_, i64>(0))?;
            // The path is free: generations are used once, and what a lost transaction left has no row and goes.
            let folder = self.layer_folder(&layer);
            self.discard(&folder).and_then(|()| std::fs::rename(staged, folder)).unwrap_or_else(|error| renamed = Err(error));
            if renamed.is_err() {
                return Ok(0);
            }
            let made = insert(transaction, &layer, self.boot(), None)?;
            transaction
                .execute("UPDATE layers SET durable = 0 WHERE diff_id = ?1 AND generation = ?2", (diff_id.to_string(), layer.generation))?;
            Ok(made)
        });
        renamed?;
        match made.map_err(io::Error::other)? {
            0 => {
                self.discard(&self.layer_folder(&layer))?;
                self.layer(diff_id).map_err(io::Error::other)?.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            _ => Ok(layer),
        }
    }

    /// Makes all that builds published durable.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn settle_layers(&self) -> io::Result<()> {
        let open: Vec<String> = self
            .db
            .read("list unsettled layers", |connection| {
                connection.prepare_cached("SELECT diff_id FROM layers WHERE durable = 0")?.query_map([], |row| row.get(0))?.collect()
            })
            .map_err(io::Error::other)?;
        if open.is_empty() {
            return Ok(());
        }
        self.syncer.sync(&File::open(self.root())?)?;
        let settled = self.db.write("settle layers", |transaction| {
            for layer in &open {
                transaction.prepare_cached("UPDATE layers SET durable = 1 WHERE diff_id = ?")?.execute([layer])?;
            }
            Ok(())
        });
        settled.map_err(io::Error::other)
    }

    /// After a start: layers that an earlier boot of the machine published without waiting for the disk may be damaged. They go,
    /// with the images that have them.
    pub(crate) fn drop_unsettled(&self) -> Result<(), DbError> {
        let lost = "SELECT diff_id FROM layers WHERE durable = 0 AND boot <> ?1";
        self.db.write("drop unsettled layers", |transaction| {
            let images = format!("SELECT DISTINCT image FROM image_layers WHERE diff_id IN ({lost})");
            transaction.execute(&format!("DELETE FROM tags WHERE image IN ({images})"), [self.boot()])?;
            transaction.execute(&format!("DELETE FROM images WHERE id IN ({images})"), [self.boot()])?;
            transaction.execute("DELETE FROM layers WHERE durable = 0 AND boot <> ?1", [self.boot()]).map(drop)
        })
    }

    /// The compressed forms of a layer that are known, those that are kept first.
    ///
    /// # Errors
    /// A failing database.
    pub fn layer_blobs(&self, diff_id: &DiffId) -> Result<Vec<BlobRow>, DbError> {
        let query = "SELECT digest, media_type, size, kept FROM layer_blobs WHERE diff_id = ? ORDER BY kept DESC, rowid DESC";
        self.db.read("list blobs of a layer", |connection| {
            connection
                .prepare_cached(query)?
                .query_map([diff_id.to_string()], |row| {
                    let size = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
                    Ok(BlobRow { digest: parsed(row, 0)?, media_type: row.get(1)?, size, kept: row.get::<_, i64>(3)? != 0 })
                })?
                .collect()
        })
    }

    /// Remembers a compressed form of a layer that is not kept; nothing happens when the layer is gone.
    ///
    /// # Errors
    /// A failing database.
    pub fn remember_blob(&self, diff_id: &DiffId, blob: &NewBlob) -> Result<(), DbError> {
        let query = "INSERT OR IGNORE INTO layer_blobs (diff_id, digest, media_type, size, kept)
            SELECT diff_id, ?2, ?3, ?4, 0 FROM layers WHERE diff_id = ?1";
        let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
        self.db.write("remember blob", |transaction| {
            transaction.execute(query, rusqlite::params![diff_id.to_string(), blob.digest.as_str(), blob.media_type, size]).map(drop)
        })
    }

    /// Says that an operation counts on layers, whether they are here already or not: they are not collected until it lets go.
    ///
    /// # Errors
    /// A failing database.
    pub fn lease_layers(&self, owner: &str, layers: &[DiffId]) -> Result<(), DbError> {
        // A live operation lets go itself; this is for those that cannot any more.
        let expires = now().saturating_add(30 * 24 * 3600);
        self.db.write("lease layers", |transaction| {
            for layer in layers {
                let values = rusqlite::params![owner, layer.to_string(), expires];
                transaction.execute("INSERT OR REPLACE INTO leases (owner, diff_id, expires) VALUES (?, ?, ?)", values)?;
            }
            Ok(())
        })
    }

    /// Ends an operation's lease at once.
    ///
    /// # Errors
    /// A failing database.
    pub fn end_lease(&self, owner: &str) -> Result<(), DbError> {
        self.db.write("end lease", |transaction| transaction.execute("DELETE FROM leases WHERE owner = ?", [owner]).map(drop))
    }

    /// Lets an operation's layers wait for its next try, for a day.
    ///
    /// # Errors
    /// A failing database.
    pub fn fade_lease(&self, owner: &str) -> Result<(), DbError> {
        let expires = now().saturating_add(i64::try_from(crate::RESUMABLE.as_secs()).unwrap_or(0));
        self.db.write("shorten lease", |transaction| {
            transaction.execute("UPDATE leases SET expires = ? WHERE owner = ?", rusqlite::params![expires, owner]).map(drop)
        })
    }

    /// After a start no operation lives: what they left waits for a day.
    pub(crate) fn shorten_leases(&self) -> Result<(), DbError> {
        let expires = now().saturating_add(i64::try_from(crate::RESUMABLE.as_secs()).unwrap_or(0));
        self.db.write("shorten leases", |transaction| {
            transaction.execute("UPDATE leases SET expires = min(expires, ?)", [expires])?;
            transaction.execute("DELETE FROM leases WHERE expires <= ?", [now()]).map(drop)
        })
    }

    /// Removes the layers that no image uses and no operation counts on: rows first, then files. Gives their sizes.
    ///
    /// # Errors
    /// A failing database; a folder that cannot be moved away goes at the next start.
    pub fn collect_layers(&self) -> Result<Vec<LayerRow>, DbError> {
        let unused = "SELECT diff_id, generation, size, content FROM layers
            WHERE NOT EXISTS (SELECT 1 FROM image_layers i WHERE i.diff_id = layers.diff_id)
            AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.diff_id = layers.diff_id AND l.expires > ?)";
        let gone: Vec<LayerRow> = self.db.write("collect layers", |transaction| {
            let gone = transaction.prepare(unused)?.query_map([now()], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            for layer in &gone {
                transaction.execute("DELETE FROM layers WHERE diff_id = ?", [layer.diff_id.to_string()])?;
            }
            if !gone.is_empty() {
                transaction.execute("DELETE FROM blob_sources WHERE digest NOT IN (SELECT digest FROM layer_blobs)", [])?;
            }
            Ok(gone)
        })?;
        for layer in &gone {
            if let Err(error) = self.discard(&self.layer_folder(layer)) {
                tracing::warn!(layer = %layer.diff_id, %error, "cannot remove a layer's folder");
            }
        }
        Ok(gone)
    }
}

/// Writes the row of a layer and of its blob; 0 when another came first.
fn insert(transaction: &rusqlite::Transaction<'_>, layer: &LayerRow, boot: &str, blob: Option<&NewBlob>) -> rusqlite::Result<usize> {
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let values = rusqlite::params![layer.diff_id.to_string(), layer.generation, boot, bytes(layer.size), bytes(layer.content)];
    let made =
        transaction.execute("INSERT OR IGNORE INTO layers (diff_id, generation, boot, size, content) VALUES (?, ?, ?, ?, ?)", values)?;
    if made == 1
        && let Some(blob) = blob
    {
        let values = rusqlite::params![layer.diff_id.to_string(), blob.digest.as_str(), blob.media_type, bytes(blob.size)];
        transaction
            .execute("INSERT OR REPLACE INTO layer_blobs (diff_id, digest, media_type, size, kept) VALUES (?, ?, ?, ?, 1)", values)?;
    }
    Ok(made)
}

/// A digest in a column.
pub(crate) fn parsed(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error)))
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    let span = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    span.map_or(0, |span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// Makes many finished layers durable at a time: a sync of the file system that began after a caller came is also his.
#[derive(Debug, Default)]
pub(crate) struct Syncer {
    state: Mutex<Syncs>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Syncs {
    /// How many syncs began.
    begun: u64,
    /// The newest one that ended well.
    ended: u64,
    /// Whether one is under way.
    running: bool,
}

impl Syncer {
    /// Comes back when everything that was written before the call is durable.
    pub(crate) fn sync(&self, place: &File) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is under way may have missed what this caller wrote.
        let wanted = state.begun + 1;
        loop {
            if state.ended >= wanted {
                return Ok(());
            }
            if !state.running {
                break;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        state.begun += 1;
        let number = state.begun;
        drop(state);
        let result = sampan_sys::file::sync_filesystem(place);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        if result.is_ok() {
            state.ended = number;
        }
        drop(state);
        self.done.notify_all();
        result
    }
}
