//! Bodies of manifests in memory, by repository and tag or digest.
//!
//! A change of a repository drops all that is known of it. A reader that looked before a change cannot put what it saw back after
//! it: it says at which epoch it looked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::store::StoredManifest;

/// Bytes of bodies that are kept.
const LIMIT: usize = 64 << 20;

#[derive(Debug, Default)]
struct Known {
    by_repository: HashMap<String, HashMap<String, Arc<StoredManifest>>>,
    bytes: usize,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct ManifestCache {
    known: RwLock<Known>,
    epoch: AtomicU64,
}

impl ManifestCache {
    /// What is known under a name.
    pub(crate) fn get(&self, repository: &str, reference: &str) -> Option<Arc<StoredManifest>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_repository.get(repository)?.get(reference).cloned()
    }

    /// The present epoch: to be asked before the database is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Keeps what was read at an epoch, unless something changed since.
    pub(crate) fn put(&self, epoch: u64, repository: &str, reference: &str, manifest: Arc<StoredManifest>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if self.epoch.load(Ordering::Acquire) != epoch {
            return;
        }
        let size = manifest.body.len() + 512;
        if known.bytes + size > LIMIT {
            *known = Known::default();
        }
        known.bytes += size;
        let inside = known.by_repository.entry(repository.to_owned()).or_default();
        if let Some(old) = inside.insert(reference.to_owned(), manifest) {
            known.bytes = known.bytes.saturating_sub(old.body.len() + 512);
        }
    }

    /// Forgets a repository: to be called after its change is durable and before it is answered.
    pub(crate) fn forget(&self, repository: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        if let Some(gone) = known.by_repository.remove(repository) {
            let size: usize = gone.values().map(|manifest| manifest.body.len() + 512).sum();
            known.bytes = known.bytes.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(body: &'static [u8]) -> Arc<StoredManifest> {
        Arc::new(StoredManifest { digest: "d".into(), media_type: "m".into(), body: bytes::Bytes::from_static(body) })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = ManifestCache::default();
        let epoch = cache.epoch();
        cache.put(epoch, "a", "x", manifest(b"1"));
        assert!(cache.get("a", "x").is_some());
        cache.forget("a");
        cache.put(epoch, "a", "x", manifest(b"1"));
        assert!(cache.get("a", "x").is_none());
        cache.put(cache.epoch(), "a", "x", manifest(b"2"));
        assert_eq!(cache.get("a", "x").unwrap().body, "2");
        assert!(cache.get("b", "x").is_none());
    }
}
