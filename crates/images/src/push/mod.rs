//! Pushing: for each layer what the registry has, what it can take over from another repository, and what must be sent; then the
//! config, then the manifest, which makes all of it visible at once.

mod layers;
mod manifest;

use std::sync::Mutex;

use sampan_base::{Cancel, Progress, ProgressSink};
use sampan_oci::{Digest, Platform, Reference};
use sampan_store::ManifestRow;
use sampan_transfer::Login;

use self::manifest::Part;
use crate::pull::cancelled;
use crate::{Image, ImageError, Images};

/// What a push wants.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The image must be of this platform.
    pub platform: Option<Platform>,
    /// Who asks.
    pub login: Login,
}

/// A tag that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
}

/// One push with all that its layers need.
pub(super) struct Push<'a> {
    images: &'a Images,
    reference: &'a Reference,
    options: &'a PushOptions,
    progress: &'a dyn ProgressSink,
    cancel: &'a Cancel,
    /// Compression takes all processors: one layer at a time.
    compressing: Mutex<()>,
}

impl Images {
    /// Pushes a tag, or without one all tags of the repository. `done` is told of each.
    ///
    /// # Errors
    /// [`ImageError`], in Docker's words; what was sent so far is the registry's to collect.
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
        done: &dyn Fn(&Pushed),
    ) -> Result<(), ImageError> {
        self.client()?;
        if let Some(platform) = &options.platform {
            self.resolve_for(&reference.familiar(), Some(platform))?;
        }
        let repository = reference.repository();
        progress.report(Progress::Message(format!("The push refers to repository [{repository}]")));
        let own = |reference: &Reference| reference.repository() == repository;
        let tags: Vec<Reference> =
            self.store().tags()?.iter().filter_map(|row| Reference::parse_normalized(&row.reference).ok().filter(own)).collect();
        let mut known = tags.len();
        if known == 0 {
            known = self.store().repo_digests()?.iter().filter(|row| row.repository == repository.to_string()).count();
        }
        if known == 0 {
            return Err(ImageError::Registry(format!("An image does not exist locally with the tag: {}", reference.familiar_name())));
        }
        if reference.digest().is_some() {
            return Err(ImageError::Registry("cannot push a digest reference".into()));
        }
        let wanted: Vec<&Reference> = match reference.tag() {
            Some(_) if tags.contains(reference) => vec![reference],
            Some(_) => return Err(ImageError::Registry(format!("tag does not exist: {}", reference.familiar()))),
            None if tags.is_empty() => {
                return Err(ImageError::Registry(format!("no tags to push for {}", reference.familiar_name())));
            }
            None => tags.iter().collect(),
        };
        for one in wanted {
            let push = Push { images: self, reference: one, options, progress, cancel, compressing: Mutex::new(()) };
            let pushed = push.tag()?;
            let text = format!("{}: digest: {} size: {}", pushed.tag, pushed.digest, pushed.size);
            progress.report(Progress::Message(text));
            done(&pushed);
        }
        self.named_event("push", reference);
        Ok(())
    }
}

impl Push<'_> {
    fn tag(&self) -> Result<Pushed, ImageError> {
        let image = self.images.resolve(&self.reference.familiar())?;
        let lease = self.images.lease()?;
        self.images.store().lease_layers(lease.owner(), image.layers())?;
        let rows = self.images.store().manifests(&image.id)?;
        let kept = manifest::kept(rows, &image.id, image.layers().len());
        let wanted: Vec<Option<Part>> = match &kept {
            None => vec![None; image.layers().len()],
            Some((_, manifest)) => manifest.layers.iter().map(|layer| Some(part(layer))).collect(),
        };
        let parts = self.layers(image.layers(), &wanted)?;
        let config = self.config(&image)?;
        let same =
            kept.filter(|_| parts.iter().zip(&wanted).all(|(sent, wanted)| Some(&sent.digest) == wanted.as_ref().map(|part| &part.digest)));
        let row = same.map_or_else(|| manifest::print(&image.id, config, &parts), |(row, _)| row);
        let client = self.images.client()?;
        client.put_manifest(self.reference, &row.media_type, &row.bytes, &self.options.login, self.cancel).map_err(cancelled)?;
        self.remember(&image, &row, &parts)?;
        Ok(Pushed { tag: self.reference.tag().unwrap_or_default().to_owned(), size: row.bytes.len() as u64, digest: row.digest })
    }

    /// Sends the config; gives its size.
    fn config(&self, image: &Image) -> Result<u64, ImageError> {
        let rows = self.images.store().images()?;
        let row = rows.into_iter().find(|row| row.id == image.id);
        let bytes = row.ok_or_else(|| ImageError::NotFound(image.id.to_string()))?.config;
        let (client, login) = (self.images.client()?, &self.options.login);
        let repository = self.reference.repository();
        if client.has_blob(&repository, &image.id.0, login, self.cancel).map_err(cancelled)?.is_none() {
            let size = bytes.len() as u64;
            let open = || Ok(Box::new(std::io::Cursor::new(bytes.clone())) as Box<dyn std::io::Read + Send>);
            client.put_blob(&repository, &image.id.0, size, &open, &|_| {}, login, self.cancel).map_err(cancelled)?;
        }
        Ok(bytes.len() as u64)
    }

    /// The image has a name by digest now, and its blobs lie there too.
    fn remember(&self, image: &Image, row: &ManifestRow, parts: &[Part]) -> Result<(), ImageError> {
        let (store, repository) = (self.images.store(), self.reference.repository().to_string());
        store.put_repo_digest(&repository, &row.digest, &image.id, Some(row))?;
        for part in parts.iter().filter(|part| !part.is_foreign) {
            store.put_blob_source(&part.digest, &repository)?;
        }
        Ok(())
    }
}

fn part(layer: &crate::pull::LayerBlob) -> Part {
    Part {
        digest: layer.descriptor.digest.clone(),
        media_type: layer.descriptor.media_type.clone(),
        size: layer.descriptor.size,
        is_foreign: !layer.urls.is_empty(),
    }
}
