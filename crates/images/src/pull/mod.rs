//! Pulling: reference → index → manifest → config → layers → rows → name.
//!
//! Nothing is named before all of it is here, checked and durable. A lease keeps the layers meanwhile; what a cancelled or killed
//! pull brought waits a day for the next try.

mod choose;
mod layers;
mod pipeline;

use sampan_base::{Cancel, Progress, ProgressSink};
use sampan_oci::{DiffId, Digest, ImageConfig, ImageId, Platform, Reference};
use sampan_store::{ImageRow, ManifestRow, NewImage};
use sampan_transfer::{FetchedManifest, Login};

use self::choose::Document;
use crate::{ImageError, Images, now_nanos};

pub(crate) use self::choose::{ImageManifest, LayerBlob};
pub(crate) use self::layers::{cancelled, retrying};

/// Largest config that is read.
const MAX_CONFIG: u64 = 8 << 20;
/// How deep indexes may hold indexes.
const MAX_DEPTH: usize = 4;

/// What a pull wants.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// For which machine; `None`: this one.
    pub platform: Option<Platform>,
    /// Who asks.
    pub login: Login,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image; of several tags the last one's.
    pub id: ImageId,
    /// Digest of the manifest or index that was asked for.
    pub digest: Digest,
    /// Whether the name is new or names another image than before.
    pub is_new: bool,
}

/// An image as a registry describes it.
struct Found {
    manifest: ImageManifest,
    /// Manifests on the way to it, the index first.
    rows: Vec<ManifestRow>,
}

impl Images {
    /// Pulls an image by tag or digest, or with neither all tags of the repository.
    ///
    /// # Errors
    /// [`ImageError`]; no name is given then. Texts are Docker's.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Pulled, ImageError> {
        let client = self.client()?;
        let mut wanted = vec![reference.clone()];
        if reference.tag().is_none() && reference.digest().is_none() {
            let tags = client.tags(reference, &options.login, cancel).map_err(cancelled)?;
            let all = tags.iter().map(|tag| reference.with_tag(tag)).collect::<Result<_, _>>();
            wanted = all?;
        }
        let mut last: Option<Pulled> = None;
        for one in &wanted {
            let pulled = self.pull_one(one, options, progress, cancel)?;
            let is_new = pulled.is_new || last.is_some_and(|last| last.is_new);
            last = Some(Pulled { is_new, ..pulled });
        }
        let pulled = last.ok_or_else(|| ImageError::NotFound(reference.familiar()))?;
        let how = if pulled.is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        progress.report(Progress::Message(format!("Status: {how} {}", reference.familiar())));
        self.named_event("pull", reference);
        if reference.tag().is_some() || reference.digest().is_some() {
            self.warn_of_platform(reference, &pulled.id, options, progress);
        }
        Ok(pulled)
    }

    fn pull_one(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Pulled, ImageError> {
        let fetched = self.fetch_manifest(reference, options, cancel)?;
        let digest = fetched.digest.clone();
        let id = if reference.digest().is_some() { reference.familiar() } else { reference.tag().unwrap_or_default().to_owned() };
        let text = format!("Pulling from {}", reference.path());
        progress.report(Progress::About { id, text });
        let found = self.resolve_document(reference, fetched, options, cancel)?;
        self.bring(reference, &digest, &found, options, progress, cancel)
    }

    /// Fetches a manifest or an index; under the digest that was asked for, if one was, and then it is what has that digest.
    fn fetch_manifest(&self, reference: &Reference, options: &PullOptions, cancel: &Cancel) -> Result<FetchedManifest, ImageError> {
        let mut fetched = self.client()?.manifest(reference, &options.login, cancel).map_err(cancelled)?;
        if let Some(digest) = reference.digest() {
            choose::check_digest(&fetched.bytes, digest)?;
            fetched.digest = digest.clone();
        }
        Ok(fetched)
    }

    /// Follows indexes to the manifest of one platform.
    fn resolve_document(
        &self,
        reference: &Reference,
        fetched: FetchedManifest,
        options: &PullOptions,
        cancel: &Cancel,
    ) -> Result<Found, ImageError> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut rows = Vec::new();
        let mut next = fetched;
        for _ in 0..MAX_DEPTH {
            let document = choose::parse(&next.media_type, &next.bytes)?;
            rows.push(ManifestRow { digest: next.digest, media_type: next.media_type, bytes: next.bytes });
            let index = match document {
                Document::Image(manifest) => return Ok(Found { manifest, rows }),
                Document::Index(index) => index,
            };
            let entry = choose::fitting(&index, &platform).into_iter().next().ok_or_else(|| choose::no_match(&platform))?;
            next = self.fetch_manifest(&reference.repository().with_digest(&entry.digest), options, cancel)?;
        }
        Err(ImageError::Registry("invalid manifest: indexes are nested too deeply".into()))
    }

    /// Brings config and layers, and writes the rows.
    fn bring(
        &self,
        reference: &Reference,
        digest: &Digest,
        found: &Found,
        options: &PullOptions,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Pulled, ImageError> {
        let lease = self.lease()?;
        let repository = reference.repository();
        let id = ImageId(found.manifest.config.digest.clone());
        let known = self.store().images()?.into_iter().find(|row| row.id == id).map(|row| row.config);
        let is_known = known.is_some();
        let bytes = match known {
            Some(bytes) => bytes,
            None => self.client()?.document(&repository, &found.manifest.config, MAX_CONFIG, &options.login, cancel).map_err(cancelled)?,
        };
        let (config, layers) = plan_layers(&bytes, &found.manifest.layers)?;
        self.store().lease_layers(lease.owner(), &config.rootfs.diff_ids)?;
        // It may have been removed between the look and the lease.
        let mut is_complete = is_known;
        for layer in &config.rootfs.diff_ids {
            is_complete &= self.store().layer(layer)?.is_some();
        }
        let work = || {
            if !is_complete {
                self.pull_layers(&repository, &layers, &options.login, progress, cancel)?;
            }
            progress.report(Progress::Message(format!("Digest: {digest}")));
            self.name_pulled(reference, digest, (&id, bytes, &config), found, lease.owner())
        };
        let done = work();
        match &done {
            Ok(_) => lease.done(),
            Err(error) if error.may_pass() => lease.fade(),
            Err(_) => drop(lease),
        }
        let is_new = done?;
        self.remember_sources(&repository, &layers);
        if let Err(error) = self.store().sweep_partials() {
            tracing::warn!(%error, "cannot remove old partial downloads");
        }
        Ok(Pulled { id, digest: digest.clone(), is_new })
    }

    /// Writes the rows of an image whose layers are here; says whether the name names something new.
    fn name_pulled(
        &self,
        reference: &Reference,
        digest: &Digest,
        (id, bytes, config): (&ImageId, Vec<u8>, &ImageConfig),
        found: &Found,
        owner: &str,
    ) -> Result<bool, ImageError> {
        let sizes = self.layer_sizes()?;
        let size = config.rootfs.diff_ids.iter().filter_map(|layer| sizes.get(layer)).sum();
        let image = ImageRow { id: id.clone(), config: bytes, size, tagged: now_nanos(), parent: None };
        let repository = reference.repository().to_string();
        let by_digest = reference.digest().is_some();
        let names = if by_digest { Vec::new() } else { vec![reference.to_string()] };
        let _change = self.begin();
        let before = if by_digest {
            let all = self.store().repo_digests()?;
            all.into_iter().find(|row| row.repository == repository && row.digest == *digest).map(|row| row.image)
        } else {
            self.store().tags()?.into_iter().find(|row| row.reference == names[0]).map(|row| row.image)
        };
        self.store().add_image(&NewImage {
            image: &image,
            layers: &config.rootfs.diff_ids,
            references: &names,
            manifests: &found.rows,
            digest: Some((&repository, digest)),
            lease: Some(owner),
        })?;
        Ok(before.is_none_or(|before| before != id.to_string()))
    }

    /// Another repository of the same registry can take these blobs over.
    fn remember_sources(&self, repository: &Reference, layers: &[(LayerBlob, DiffId)]) {
        for (blob, _) in layers.iter().filter(|(blob, _)| blob.urls.is_empty()) {
            if let Err(error) = self.store().put_blob_source(&blob.descriptor.digest, &repository.to_string()) {
                tracing::warn!(%error, "cannot remember where a blob lies");
            }
        }
    }

    /// A repository that has one platform only gives it, whichever was asked for; the user should know.
    fn warn_of_platform(&self, reference: &Reference, id: &ImageId, options: &PullOptions, progress: &dyn ProgressSink) {
        let Some(wanted) = &options.platform else { return };
        let Ok(image) = self.resolve(&id.to_string()) else { return };
        let have = image.config.platform();
        if wanted.rank(&have).is_none() {
            let name = reference.familiar();
            let warning = ImageError::Platform { name, have: Box::new(have), wanted: Box::new(wanted.clone()) };
            progress.report(Progress::Message(format!("WARNING: {warning}")));
        }
    }
}

/// An image's manifest, if it is one.
pub(crate) fn parse_image(media_type: &str, bytes: &[u8]) -> Option<ImageManifest> {
    match choose::parse(media_type, bytes) {
        Ok(Document::Image(manifest)) => Some(manifest),
        _ => None,
    }
}

/// Checks that config and manifest speak of the same layers, and puts them side by side.
fn plan_layers(bytes: &[u8], blobs: &[LayerBlob]) -> Result<(ImageConfig, Vec<(LayerBlob, DiffId)>), ImageError> {
    let config = ImageConfig::parse(bytes).map_err(|error| ImageError::Registry(error.to_string()))?;
    if !config.os.is_empty() && config.os != "linux" {
        let os = sampan_base::sanitize(&config.os);
        return Err(ImageError::Unsupported(format!("image operating system \"{os}\" cannot be used on this platform")));
    }
    if config.rootfs.diff_ids.len() != blobs.len() {
        return Err(pipeline::mismatch());
    }
    let layers = blobs.iter().cloned().zip(config.rootfs.diff_ids.iter().cloned()).collect();
    Ok((config, layers))
}
