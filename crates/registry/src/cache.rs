//! Manifests in memory, by repository and tag or digest: what most requests ask for.
//!
//! The server is the only writer of manifests, so what is here is true until a change takes it out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;

use crate::route::Target;
use crate::store::ManifestRow;

/// Bytes of manifests that are kept at most.
const LIMIT: usize = 64 << 20;

/// A manifest ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) digest_header: HeaderValue,
    pub(crate) etag: HeaderValue,
    pub(crate) media_type: HeaderValue,
    pub(crate) body: Bytes,
}

impl Ready {
    fn new(row: ManifestRow) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            digest_header: HeaderValue::from_str(&row.digest).ok()?,
            etag: HeaderValue::from_str(&format!("\"{}\"", row.digest)).ok()?,
            media_type: HeaderValue::from_str(&row.media_type).ok()?,
            body: row.body.into(),
        }))
    }
}

#[derive(Debug, Default)]
struct Kept {
    repositories: HashMap<String, HashMap<String, Arc<Ready>>>,
    bytes: usize,
    /// Goes up with every change: what was read before a change is not kept after it.
    epoch: u64,
}

/// The manifests in memory.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Kept>);

fn key(target: &Target) -> &str {
    match target {
        Target::Tag(tag) => tag,
        Target::Digest(digest) => digest.as_str(),
    }
}

impl Cache {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest, if it is kept.
    pub(crate) fn get(&self, repo: &str, target: &Target) -> Option<Arc<Ready>> {
        self.kept().repositories.get(repo)?.get(key(target)).cloned()
    }

    /// To be asked before the store is read.
    pub(crate) fn epoch(&self) -> u64 {
        self.kept().epoch
    }

    /// Keeps what the store gave, unless something changed since `epoch`.
    pub(crate) fn keep(&self, repo: &str, target: &Target, row: ManifestRow, epoch: u64) -> Option<Arc<Ready>> {
        let ready = Ready::new(row)?;
        let mut kept = self.kept();
        if kept.epoch == epoch {
            kept.bytes += ready.body.len() + 512;
            if kept.bytes > LIMIT {
                kept.repositories.clear();
                kept.bytes = ready.body.len() + 512;
            }
            kept.repositories.entry(repo.to_owned()).or_default().insert(key(target).to_owned(), Arc::clone(&ready));
        }
        Some(ready)
    }

    /// Forgets a repository: something of it changed. To be called after the change.
    pub(crate) fn forget(&self, repo: &str) {
        let mut kept = self.kept();
        kept.epoch += 1;
        if let Some(gone) = kept.repositories.remove(repo) {
            kept.bytes = kept.bytes.saturating_sub(gone.values().map(|ready| ready.body.len() + 512).sum());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = Cache::default();
        let row = || ManifestRow { digest: "sha256:1".into(), media_type: "t".into(), body: b"{}".to_vec() };
        let target = Target::Tag("x".into());
        let epoch = cache.epoch();
        cache.forget("a");
        assert!(cache.keep("a", &target, row(), epoch).is_some());
        assert!(cache.get("a", &target).is_none());
        cache.keep("a", &target, row(), cache.epoch());
        assert_eq!(cache.get("a", &target).unwrap().body, "{}");
        cache.forget("a");
        assert!(cache.get("a", &target).is_none());
    }
}
