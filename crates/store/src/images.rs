//! Images and tags.

use rusqlite::{OptionalExtension as _, params};
use sampan_durable::DbError;
use sampan_oci::{DiffId, Digest, ImageId};

use crate::layers::now;
use crate::{ManifestRow, Store};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Digest of its config.
    pub id: ImageId,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Bytes of its layers' files.
    pub size: u64,
    /// When it came here, nanoseconds since the epoch.
    pub tagged: i64,
    /// The image it was committed from.
    pub parent: Option<String>,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// The reference in full.
    pub reference: String,
    /// What it names.
    pub image: String,
}

/// An image that is written with what belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// The image.
    pub image: &'a ImageRow,
    /// Its layers, lowest first.
    pub layers: &'a [DiffId],
    /// Names that it gets, in full.
    pub references: &'a [String],
    /// Its manifests and indexes, byte for byte.
    pub manifests: &'a [ManifestRow],
    /// The name by digest that it gets: repository in full, digest.
    pub digest: Option<(&'a str, &'a Digest)>,
    /// The operation whose lease ends.
    pub lease: Option<&'a str>,
}

fn insert_image(transaction: &rusqlite::Transaction<'_>, image: &ImageRow, layers: &[DiffId]) -> rusqlite::Result<()> {
    let size = i64::try_from(image.size).unwrap_or(i64::MAX);
    let id = image.id.to_string();
    let made = transaction.execute(
        "INSERT OR IGNORE INTO images (id, config, size, created, tagged) VALUES (?, ?, ?, 0, ?)",
        params![id, image.config, size, image.tagged],
    )?;
    if made == 0 {
        return Ok(());
    }
    for (position, layer) in (0_i64..).zip(layers) {
        let known: i64 = transaction.query_row("SELECT count(*) FROM layers WHERE diff_id = ?", [layer.to_string()], |row| row.get(0))?;
        if known == 0 {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        }
        transaction.execute("INSERT INTO image_layers VALUES (?, ?, ?)", params![id, position, layer.to_string()])?;
    }
    if let Some(parent) = &image.parent {
        transaction.execute("INSERT OR REPLACE INTO parents VALUES (?, ?)", params![id, parent])?;
    }
    Ok(())
}

impl Store {
    /// Writes an image and its tags in one transaction. Gives for each tag the image that had it before.
    ///
    /// # Errors
    /// A failing database; nothing changed then. A layer that is missing fails it too.
    pub fn put_image(&self, image: &ImageRow, layers: &[DiffId], references: &[String]) -> Result<Vec<Option<String>>, DbError> {
        self.add_image(&NewImage { image, layers, references, manifests: &[], digest: None, lease: None })
    }

    /// Writes an image without a name that can be made again: a killed process does not lose it, a power cut may.
    ///
    /// # Errors
    /// As [`Store::put_image`].
    pub fn put_built_image(&self, image: &ImageRow, layers: &[DiffId]) -> Result<(), DbError> {
        self.db.write_soon("write image", |transaction| insert_image(transaction, image, layers))
    }

    /// One image, if it is here.
    ///
    /// # Errors
    /// A failing database.
    pub fn image_config(&self, id: &str) -> Result<Option<Vec<u8>>, DbError> {
        self.db.read("find image", |connection| {
            connection.prepare_cached("SELECT config FROM images WHERE id = ?")?.query_row([id], |row| row.get(0)).optional()
        })
    }

    /// Writes an image with all that belongs to it in one transaction, and ends the lease of the operation that brought it. Gives
    /// for each tag the image that had it before.
    ///
    /// # Errors
    /// A failing database; nothing changed then. A layer that is missing fails it too.
    pub fn add_image(&self, new: &NewImage<'_>) -> Result<Vec<Option<String>>, DbError> {
        self.db.write("write image", |transaction| {
            insert_image(transaction, new.image, new.layers)?;
            let id = new.image.id.to_string();
            for manifest in new.manifests {
                let values = params![manifest.digest.as_str(), id, manifest.media_type, manifest.bytes];
                transaction.execute("INSERT OR REPLACE INTO manifests (digest, image, media_type, bytes) VALUES (?, ?, ?, ?)", values)?;
            }
            if let Some((repository, digest)) = new.digest {
                transaction.execute("INSERT OR REPLACE INTO repo_digests VALUES (?, ?, ?)", params![repository, digest.as_str(), id])?;
            }
            let mut before = Vec::new();
            for reference in new.references {
                before.push(transaction.query_row("SELECT image FROM tags WHERE reference = ?", [reference], |row| row.get(0)).optional()?);
                transaction.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", params![reference, id])?;
            }
            if let Some(owner) = new.lease {
                transaction.execute("DELETE FROM leases WHERE owner = ?", [owner])?;
                // What earlier tries had left for this one.
                let horizon = now().saturating_add(i64::try_from(crate::RESUMABLE.as_secs()).unwrap_or(0));
                for layer in new.layers {
                    transaction.execute("DELETE FROM leases WHERE diff_id = ? AND expires <= ?", params![layer.to_string(), horizon])?;
                }
            }
            Ok(before)
        })
    }

    /// Every image, newest first.
    ///
    /// # Errors
    /// A failing database.
    pub fn images(&self) -> Result<Vec<ImageRow>, DbError> {
        let query =
            "SELECT i.id, i.config, i.size, i.tagged, p.parent FROM images i LEFT JOIN parents p ON p.image = i.id ORDER BY i.rowid DESC";
        self.db.read("list images", |connection| {
            connection
                .prepare_cached(query)?
                .query_map([], |row| {
                    let id: String = row.get(0)?;
                    let id = id
                        .parse()
                        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))?;
                    Ok(ImageRow {
                        id,
                        config: row.get(1)?,
                        size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                        tagged: row.get(3)?,
                        parent: row.get(4)?,
                    })
                })?
                .collect()
        })
    }

    /// Every tag, by reference.
    ///
    /// # Errors
    /// A failing database.
    pub fn tags(&self) -> Result<Vec<TagRow>, DbError> {
        self.db.read("list tags", |connection| {
            let mut statement = connection.prepare_cached("SELECT reference, image FROM tags ORDER BY reference")?;
            statement.query_map([], |row| Ok(TagRow { reference: row.get(0)?, image: row.get(1)? }))?.collect()
        })
    }

    /// Gives a name to an image.
    ///
    /// # Errors
    /// A failing database.
    pub fn put_tag(&self, reference: &str, image: &ImageId) -> Result<(), DbError> {
        self.db.write("write tag", |transaction| {
            transaction.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", params![reference, image.to_string()]).map(drop)
        })
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_tag(&self, reference: &str) -> Result<(), DbError> {
        self.db.write("delete tag", |transaction| transaction.execute("DELETE FROM tags WHERE reference = ?", [reference]).map(drop))
    }

    /// Removes an image with its tags, unless a container pins it; says whether it went.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_image(&self, image: &ImageId) -> Result<(), DbError> {
        self.db.write("delete image", |transaction| {
            transaction.execute("DELETE FROM tags WHERE image = ?", [image.to_string()])?;
            transaction.execute("DELETE FROM images WHERE id = ?", [image.to_string()]).map(drop)
        })
    }
}
