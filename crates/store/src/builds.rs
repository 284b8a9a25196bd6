//! What the builder remembers: results of steps by the key of what went into them.
//!
//! A row holds its image as long as it is there: `image prune` leaves such images alone. Whose image is gone is of no use and is
//! left out of every answer.

use rusqlite::{OptionalExtension as _, Row, params};
use sampan_durable::DbError;

use crate::Store;

/// A remembered result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRow {
    /// What went in, hashed.
    pub key: String,
    /// Which place of which Dockerfile made it: the newest result of the same place tells what has changed since.
    pub place: String,
    /// The instruction as people see it.
    pub text: String,
    /// What went in, part by part, as JSON.
    pub parts: String,
    /// The image of the step that made it.
    pub image: String,
    /// Digest of the tree that resulted.
    pub tree: String,
    /// The layer that resulted; empty for none.
    pub layer: String,
    /// Bytes of that layer.
    pub size: u64,
    /// When it was made, as images write it.
    pub created: String,
    /// When it was last used, seconds since the epoch.
    pub used: i64,
    /// How often.
    pub uses: u64,
    /// Whether a build ended with it: such an image is shown in lists although it has no name.
    pub result: bool,
}

const COLUMNS: &str = "SELECT key, place, text, parts, image, tree, layer, size, created, used, uses, result FROM build_cache b
    WHERE EXISTS (SELECT 1 FROM images i WHERE i.id = b.image)";

fn row(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    let number = |column| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0));
    Ok(BuildRow {
        key: row.get(0)?,
        place: row.get(1)?,
        text: row.get(2)?,
        parts: row.get(3)?,
        image: row.get(4)?,
        tree: row.get(5)?,
        layer: row.get(6)?,
        size: number(7)?,
        created: row.get(8)?,
        used: row.get(9)?,
        uses: number(10)?,
        result: row.get::<_, i64>(11)? != 0,
    })
}

impl Store {
    /// The result that a key has.
    ///
    /// # Errors
    /// A failing database.
    pub fn build_result(&self, key: &str) -> Result<Option<BuildRow>, DbError> {
        let query = format!("{COLUMNS} AND key = ?");
        self.db.read("find build result", |connection| connection.prepare_cached(&query)?.query_row([key], row).optional())
    }

    /// The newest result of a place.
    ///
    /// # Errors
    /// A failing database.
    pub fn build_place(&self, place: &str) -> Result<Option<BuildRow>, DbError> {
        let query = format!("{COLUMNS} AND place = ? ORDER BY rowid DESC LIMIT 1");
        self.db.read("find build place", |connection| connection.prepare_cached(&query)?.query_row([place], row).optional())
    }

    /// Every result.
    ///
    /// # Errors
    /// A failing database.
    pub fn build_results(&self) -> Result<Vec<BuildRow>, DbError> {
        let query = format!("{COLUMNS} ORDER BY rowid");
        self.db.read("list build results", |connection| connection.prepare_cached(&query)?.query_map([], row)?.collect())
    }

    /// Remembers results; known keys are replaced.
    ///
    /// # Errors
    /// A failing database.
    pub fn put_build_results(&self, rows: &[BuildRow]) -> Result<(), DbError> {
        self.db.write_soon("remember build results", |transaction| {
            for one in rows {
                let values = params![
                    one.key,
                    one.place,
                    one.text,
                    one.parts,
                    one.image,
                    one.tree,
                    one.layer,
                    i64::try_from(one.size).unwrap_or(i64::MAX),
                    one.created,
                    one.used,
                    i64::try_from(one.uses).unwrap_or(i64::MAX),
                    i64::from(one.result)
                ];
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO build_cache (key, place, text, parts, image, tree, layer, size, created, used, uses, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
                    .execute(values)?;
            }
            Ok(())
        })
    }

    /// Notes that results were used now.
    ///
    /// # Errors
    /// A failing database.
    pub fn use_build_results(&self, keys: &[String]) -> Result<(), DbError> {
        self.db.write_soon("note use of build results", |transaction| {
            for key in keys {
                transaction
                    .prepare_cached("UPDATE build_cache SET used = ?, uses = uses + 1 WHERE key = ?")?
                    .execute(params![crate::layers::now(), key])?;
            }
            Ok(())
        })
    }

    /// Marks what a build ended with.
    ///
    /// # Errors
    /// A failing database.
    pub fn mark_build_result(&self, image: &str) -> Result<(), DbError> {
        self.db.write("mark build result", |transaction| {
            transaction.execute("UPDATE build_cache SET result = 1 WHERE image = ? AND result = 0", [image]).map(drop)
        })
    }

    /// Forgets results.
    ///
    /// # Errors
    /// A failing database.
    pub fn forget_build_results(&self, keys: &[String]) -> Result<(), DbError> {
        self.db.write("forget build results", |transaction| {
            for key in keys {
                transaction.prepare_cached("DELETE FROM build_cache WHERE key = ?")?.execute([key])?;
            }
            Ok(())
        })
    }
}

impl Store {
    /// Keeps layers from being collected while a build uses them; of no meaning after a start.
    ///
    /// # Errors
    /// A failing database.
    pub fn hold_layers(&self, owner: &str, layers: &[sampan_oci::DiffId]) -> Result<(), DbError> {
        let expires = crate::layers::now().saturating_add(30 * 24 * 3600);
        self.db.write_soon("hold layers", |transaction| {
            for layer in layers {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO leases (owner, diff_id, expires) VALUES (?, ?, ?)")?
                    .execute(params![owner, layer.to_string(), expires])?;
            }
            Ok(())
        })
    }

    /// Ends [`Store::hold_layers`].
    ///
    /// # Errors
    /// A failing database.
    pub fn let_layers_go(&self, owner: &str) -> Result<(), DbError> {
        self.db.write_soon("let layers go", |transaction| transaction.execute("DELETE FROM leases WHERE owner = ?", [owner]).map(drop))
    }
}
