//! What is remembered of earlier builds: the list, and its pruning.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use sampan_store::BuildRow;

use super::builder::Builder;
use super::error::BuildError;

/// A remembered result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Its key.
    pub id: String,
    /// The instruction.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// When it was made, as images write it.
    pub created: String,
    /// When it was last used, seconds since the epoch.
    pub used: i64,
    /// How often.
    pub uses: u64,
    /// Whether an image with a name needs it.
    pub shared: bool,
}

/// What a prune of the builder's memory takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Also what images with names need, and the places of cache mounts.
    pub all: bool,
    /// Only what was not used since then, seconds since the epoch.
    pub before: Option<i64>,
    /// How many bytes may stay.
    pub keep: u64,
}

impl Builder {
    /// What is remembered.
    ///
    /// # Errors
    /// A failing database.
    pub fn cache(&self) -> Result<Vec<CacheItem>, BuildError> {
        let rows = self.store.build_results().map_err(|error| BuildError::room("", &error))?;
        let named = self.needed_images()?;
        let mut seen = HashSet::new();
        Ok(rows
            .into_iter()
            .filter(|row| seen.insert(row.image.clone()))
            .map(|row| CacheItem {
                id: row.key.chars().take(25).collect(),
                description: row.text,
                size: row.size,
                created: row.created,
                used: row.used,
                uses: row.uses,
                shared: named.contains(&row.image),
            })
            .collect())
    }

    /// Images with names and those that they were built on.
    fn needed_images(&self) -> Result<HashSet<String>, BuildError> {
        let all = self.images.all().map_err(|error| BuildError::room("", &error))?;
        let parents: HashMap<String, Option<String>> = all.iter().map(|image| (image.id.to_string(), image.parent.clone())).collect();
        let mut needed = HashSet::new();
        for image in all.iter().filter(|image| !image.references.is_empty()) {
            let mut next = Some(image.id.to_string());
            while let Some(id) = next.filter(|id| needed.insert(id.clone())) {
                next = parents.get(&id).cloned().flatten();
            }
        }
        Ok(needed)
    }

    /// Forgets results, the longest unused ones first, and removes what only they held. `users` tells the containers of an image.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn prune(&self, request: PruneRequest, users: &dyn Fn(&str) -> Vec<(String, bool)>) -> Result<(Vec<String>, u64), BuildError> {
        let room = |error: sampan_store::DbError| BuildError::room("", &error);
        let first = self.active.lock().unwrap_or_else(PoisonError::into_inner).iter().min().copied();
        let needed = if request.all { HashSet::new() } else { self.needed_images()? };
        let mut rows = self.store.build_results().map_err(room)?;
        rows.sort_by_key(|row| row.used);
        let mut left: u64 = rows.iter().map(|row| row.size).sum();
        let mut going: Vec<BuildRow> = Vec::new();
        for row in rows {
            let old = request.before.is_none_or(|before| row.used < before) && first.is_none_or(|first| row.used < first);
            if old && !needed.contains(&row.image) && (request.keep == 0 || left > request.keep) {
                left -= row.size.min(left);
                going.push(row);
            }
        }
        let keys: Vec<String> = going.iter().map(|row| row.key.clone()).collect();
        self.store.forget_build_results(&keys).map_err(room)?;
        let images: Vec<String> = going.into_iter().map(|row| row.image).collect();
        let mut space = self.images.remove_steps(&images, users).map_err(|error| BuildError::room("", &error))?;
        if first.is_none() && request.before.is_none() && request.keep == 0 {
            space += self.mirror.size();
            self.mirror.clear().map_err(BuildError::io("clear the mirror of contexts"))?;
            self.forget_downloads()?;
            if request.all {
                self.clear_caches()?;
            }
        }
        Ok((keys.iter().map(|key| key.chars().take(25).collect()).collect(), space))
    }

    fn forget_downloads(&self) -> Result<(), BuildError> {
        match std::fs::remove_dir_all(self.folder.join("downloads")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BuildError::io("forget downloads")(error)),
            _ => Ok(()),
        }
    }

    fn clear_caches(&self) -> Result<(), BuildError> {
        let fail = || BuildError::io("remove cache mounts");
        for entry in std::fs::read_dir(self.folder.join("caches")).map_err(fail())?.flatten() {
            self.store.discard(&entry.path()).map_err(fail())?;
        }
        Ok(())
    }
}
