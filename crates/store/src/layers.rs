//! Layers: a row for each unpacked tree.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Row};
use sampan_durable::DbError;
use sampan_oci::DiffId;

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

    /// The folder of a layer: `fs` below it is the tree, `tar` its exact archive.
    #[must_use]
    pub fn layer_folder(&self, layer: &LayerRow) -> PathBuf {
        self.root().join("layers").join(format!("{}.{}", layer.diff_id.0.hex(), layer.generation))
    }

    /// Publishes a finished layer: `staged` (with `fs` and `tar` in it) gets its place, durably, then its row. One that came
    /// first stays, and `staged` is discarded.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn publish_layer(&self, diff_id: &DiffId, staged: &Path, size: u64, content: u64) -> io::Result<LayerRow> {
        if let Some(present) = self.layer(diff_id).map_err(io::Error::other)? {
            self.discard(staged)?;
            return Ok(present);
        }
        sampan_sys::file::sync_filesystem(&File::open(staged)?)?;
        let generation = self.db.write("next generation", |transaction| {
            transaction.query_row("UPDATE generations SET last = last + 1 RETURNING last", [], |row| row.get::<_, i64>(0))
        });
        let layer = LayerRow { diff_id: diff_id.clone(), generation: generation.map_err(io::Error::other)?, size, content };
        let folder = self.layer_folder(&layer);
        std::fs::rename(staged, &folder)?;
        File::open(self.root().join("layers"))?.sync_all()?;
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let inserted = self.db.write("publish layer", |transaction| {
            let values = rusqlite::params![diff_id.to_string(), layer.generation, self.boot(), bytes(size), bytes(content)];
            transaction.execute("INSERT OR IGNORE INTO layers (diff_id, generation, boot, size, content) VALUES (?, ?, ?, ?, ?)", values)
        });
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

    /// Removes the layers that no image uses: rows first, then files. Gives their sizes.
    ///
    /// # Errors
    /// A failing database; a folder that cannot be moved away goes at the next start.
    pub fn collect_layers(&self) -> Result<Vec<LayerRow>, DbError> {
        let unused = "SELECT diff_id, generation, size, content FROM layers WHERE NOT EXISTS (SELECT 1 FROM image_layers i WHERE i.diff_id = layers.diff_id)";
        let gone: Vec<LayerRow> = self.db.write("collect layers", |transaction| {
            let gone = transaction.prepare(unused)?.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            for layer in &gone {
                transaction.execute("DELETE FROM layers WHERE diff_id = ?", [layer.diff_id.to_string()])?;
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
