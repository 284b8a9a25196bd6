//! The life of images: pull, push, load, import, commit, tag, find, list, history, save, remove, prune.
//!
//! The only writer of rows of images, layers and tags. Everything that comes in is staged, checked against its digests, made
//! durable, and only then named.
#![forbid(unsafe_code)]

mod build;
mod built;
mod error;
mod find;
mod flight;
mod layer;
mod lease;
mod load;
mod pull;
mod push;
mod remove;
mod save;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use sampan_base::{Event, EventKind, EventSink};
use sampan_oci::{DiffId, ImageConfig, ImageId, Reference};
use sampan_store::Store;
use sampan_transfer::Client;

use crate::flight::{Flights, Permits};

pub use build::{CommitOptions, ImportOptions};
pub use built::BuiltLayer;
pub use error::ImageError;
pub use find::{HistoryItem, ImageFilter};
pub use load::Loaded;
pub use pull::{PullOptions, Pulled};
pub use push::{PushOptions, Pushed};
pub use remove::{Pruned, Removed};

/// How many layers are sent at once: the original's number.
const UPLOADS: usize = 5;

/// The images of a data root.
pub struct Images {
    store: Arc<Store>,
    events: Arc<dyn EventSink>,
    /// Serialises what adds and what removes: a removal must not take what an addition counts on.
    change: Mutex<()>,
    /// Held shared while layers wait for their image's row, alone while unused layers are removed (moby#53335).
    adding: RwLock<()>,
    /// A failed addition may have published layers that no image uses.
    unswept: AtomicBool,
    /// The way to registries, where there is one.
    client: Option<Client>,
    /// Layers that are on their way.
    flights: Flights,
    /// How many layers are fetched and unpacked at once.
    permits: Arc<Permits>,
    /// How many layers are sent at once.
    uploads: Arc<Permits>,
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of its config.
    pub id: ImageId,
    /// Its config.
    pub config: ImageConfig,
    /// Its names, familiar and sorted.
    pub references: Vec<String>,
    /// Its names by digest, familiar and sorted.
    pub digests: Vec<String>,
    /// Bytes of its files.
    pub size: u64,
    /// When it came here or was last tagged, nanoseconds since the epoch.
    pub tagged: i64,
    /// The image it was committed from.
    pub parent: Option<String>,
}

impl Image {
    /// Its layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[DiffId] {
        &self.config.rootfs.diff_ids
    }

    /// When it was made, seconds since the epoch.
    #[must_use]
    pub fn created(&self) -> i64 {
        let time = self.config.created.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map_or(0, jiff::Timestamp::as_second)
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("root", &self.store.root()).finish_non_exhaustive()
    }
}

impl Images {
    /// Works on a data root.
    #[must_use]
    pub fn open(store: Arc<Store>, events: Arc<dyn EventSink>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            store,
            events,
            change: Mutex::new(()),
            adding: RwLock::new(()),
            unswept: AtomicBool::new(false),
            client: None,
            flights: Flights::default(),
            permits: Permits::new((2 * cores).clamp(4, 16)),
            uploads: Permits::new(UPLOADS),
        }
    }

    /// The same with other numbers of layers that are fetched and sent at once.
    #[must_use]
    pub fn with_limits(self, downloads: Option<NonZeroUsize>, uploads: Option<NonZeroUsize>) -> Self {
        let permits = downloads.map_or(self.permits, |count| Permits::new(count.get()));
        let uploads = uploads.map_or(self.uploads, |count| Permits::new(count.get()));
        Self { permits, uploads, ..self }
    }

    /// The same with a way to registries.
    #[must_use]
    pub fn with_client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The way to registries.
    ///
    /// # Errors
    /// When there is none.
    pub fn client(&self) -> Result<&Client, ImageError> {
        self.client.as_ref().ok_or_else(|| ImageError::Unsupported("not supported: registries (no client was set up)".into()))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn begin(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what publishes layers before their image. When it fails, the layers that it published go: at once, or, as others may
    /// count on them, when the last addition under way is over.
    pub(crate) fn adding<T>(&self, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
        let guard = self.adding.read().unwrap_or_else(PoisonError::into_inner);
        let result = work();
        if result.is_err() {
            self.unswept.store(true, Ordering::SeqCst);
        }
        drop(guard);
        self.sweep();
        result
    }

    /// Removes the layers of failed operations, when nobody may count on them any more.
    pub(crate) fn sweep(&self) {
        if self.unswept.load(Ordering::SeqCst)
            && let Ok(_alone) = self.adding.try_write()
        {
            self.unswept.store(false, Ordering::SeqCst);
            if let Err(error) = self.store.collect_layers() {
                tracing::warn!(%error, "cannot remove the layers of a failed operation");
            }
        }
    }

    /// Begins an operation that removes layers without an image.
    pub(crate) fn collect(&self) -> RwLockWriteGuard<'_, ()> {
        self.adding.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn event(&self, action: &str, id: &str, name: &str) {
        let attributes = if name.is_empty() { Vec::new() } else { vec![("name".to_owned(), name.to_owned())] };
        self.events.publish(Event { kind: EventKind::Image, action: action.into(), id: id.into(), attributes, time_nano: 0 });
    }

    /// What happened to a name in a registry.
    pub(crate) fn named_event(&self, action: &str, reference: &Reference) {
        self.event(action, &reference.familiar(), &reference.familiar_name());
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn tag(&self, source: &str, reference: &str) -> Result<(), ImageError> {
        let image = self.resolve(source)?;
        let reference = Reference::parse_normalized(reference)?;
        if reference.digest().is_some() {
            return Err(ImageError::Invalid("refusing to create a tag with a digest reference".into()));
        }
        let reference = reference.with_default_tag();
        let _change = self.begin();
        self.store.put_tag(&reference.to_string(), &image.id)?;
        self.event("tag", &image.id.to_string(), &reference.familiar());
        Ok(())
    }

    /// The directories of an image's layers, top first, for an overlay.
    ///
    /// # Errors
    /// [`ImageError`] when a layer is missing.
    pub fn lowers(&self, image: &ImageId) -> Result<Vec<std::path::PathBuf>, ImageError> {
        let image = self.resolve(&image.to_string())?;
        let mut lowers = Vec::new();
        for layer in image.layers().iter().rev() {
            let row = self.store.layer(layer)?.ok_or_else(|| ImageError::MissingLayer(layer.to_string()))?;
            lowers.push(self.store.layer_folder(&row).join("fs"));
        }
        if lowers.is_empty() {
            // An image without layers: overlay wants one.
            let empty = self.store.root().join("empty");
            std::fs::create_dir_all(&empty).map_err(ImageError::io("make an empty layer"))?;
            lowers.push(empty);
        }
        Ok(lowers)
    }

    /// How many bytes each layer's files take.
    ///
    /// # Errors
    /// A failing database.
    pub fn layer_sizes(&self) -> Result<std::collections::HashMap<DiffId, u64>, ImageError> {
        Ok(self.store.layers()?.into_iter().map(|layer| (layer.diff_id, layer.content)).collect())
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
