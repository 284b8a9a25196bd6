//! Loading of archives: docker-archives old and new, OCI layouts, compressed or not, from a stream.
//!
//! The archive's files go into a staging folder first, as the list of images may come last. Then every layer is unpacked, in
//! parallel, and checked against its diff id. Only when all of an image is there and durable it gets its names.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sampan_archive::tar::{Kind, Reader, TarError};
use sampan_archive::{Compression, Decompress, Hashing};
use sampan_base::{Cancel, Progress, ProgressSink};
use sampan_layers::{ExtractError, Mode, extract};
use sampan_oci::{ArchiveItem, DiffId, Digest, ImageConfig, ImageId, Index, Manifest, Platform, Reference, media};
use sampan_store::ImageRow;

use crate::{ImageError, Images, now_nanos};

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: ImageId,
    /// The names it got, familiar.
    pub references: Vec<String>,
}

/// Most files in an archive.
const MAX_FILES: usize = 100_000;
/// Most layers of an image: the original's limit, and what one overlay mount takes.
pub(crate) const MAX_LAYERS: usize = 125;
/// Largest document in an archive.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Files of an archive, by path, in a staging folder.
struct Staged {
    folder: PathBuf,
    files: BTreeMap<String, PathBuf>,
    /// Links between them, as old archives have.
    links: HashMap<String, String>,
}

/// An image of an archive, before its layers are unpacked.
struct Wish {
    config_bytes: Vec<u8>,
    config: ImageConfig,
    layers: Vec<PathBuf>,
    references: Vec<Reference>,
    /// The id of the image that it was made from.
    parent: Option<String>,
}

impl Wish {
    fn id(&self) -> ImageId {
        ImageId(Digest::sha256_of(&self.config_bytes))
    }
}

impl Images {
    /// Loads every image of an archive, or those of one platform.
    ///
    /// # Errors
    /// [`ImageError`]; no image of the archive is named then, and nothing is left.
    pub fn load(
        &self,
        archive: impl Read,
        platform: Option<&Platform>,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Vec<Loaded>, ImageError> {
        self.adding(|| {
            let folder = self.store().staging().map_err(ImageError::io("make a staging folder"))?;
            let result = self.load_into(&folder, archive, platform, progress, cancel);
            if let Err(error) = self.store().discard(&folder) {
                tracing::warn!(%error, "cannot remove a staging folder");
            }
            result
        })
    }

    fn load_into(
        &self,
        folder: &Path,
        archive: impl Read,
        platform: Option<&Platform>,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Vec<Loaded>, ImageError> {
        let staged = stage(folder, archive, cancel)?;
        let mut wishes = staged.wishes()?;
        wishes.retain(|wish| platform.is_none_or(|platform| wish.config.platform().fits(platform)));
        let mut loaded = Vec::new();
        for wish in &wishes {
            self.unpack_layers(folder, wish, progress, cancel)?;
        }
        // An archive's word for a parent is taken only where the layers bear it out.
        let configs: HashMap<String, ImageConfig> = wishes.iter().map(|wish| (wish.id().to_string(), wish.config.clone())).collect();
        for wish in &mut wishes {
            let parent = wish.parent.take();
            wish.parent = parent.filter(|parent| configs.get(parent).is_some_and(|parent| is_made_from(&wish.config, parent)));
        }
        let _change = self.begin();
        for wish in wishes {
            loaded.push(self.publish(&wish, progress)?);
        }
        Ok(loaded)
    }

    /// Unpacks the layers that are not here yet, on all processors, largest first.
    fn unpack_layers(&self, folder: &Path, wish: &Wish, progress: &dyn ProgressSink, cancel: &Cancel) -> Result<(), ImageError> {
        let mut missing: Vec<(DiffId, &PathBuf, u64)> = Vec::new();
        for (diff_id, path) in wish.config.rootfs.diff_ids.iter().zip(&wish.layers) {
            if self.store().layer(diff_id)?.is_none() && !missing.iter().any(|(known, ..)| known == diff_id) {
                let size = path.metadata().map_err(ImageError::io("read a staged layer"))?.len();
                missing.push((diff_id.clone(), path, size));
            }
        }
        missing.sort_by_key(|(_, _, size)| std::cmp::Reverse(*size));
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(missing.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((diff_id, path, size)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.unpack_layer(folder, diff_id, path, *size, progress, cancel) {
                            let mut first = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            first.get_or_insert(error);
                            return;
                        }
                    }
                });
            }
        });
        let failed = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn unpack_layer(
        &self,
        folder: &Path,
        diff_id: &DiffId,
        path: &Path,
        size: u64,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        let part = |current: u64| Progress::Part {
            id: diff_id.0.short().to_owned(),
            status: "Loading layer".into(),
            current: Some(current),
            total: Some(size),
        };
        progress.report(part(0));
        let place = folder.join(format!("layer-{}", diff_id.0.hex()));
        let fs = place.join("fs");
        std::fs::create_dir_all(&fs).map_err(ImageError::io("make a layer's folder"))?;
        let source = File::open(path).map_err(ImageError::io("open a staged layer"))?;
        let decompressed =
            Decompress::new(Counting { inner: source, count: 0, progress, part: &part }).map_err(ImageError::io("read a staged layer"))?;
        let plain = decompressed.compression() == Compression::None;
        let (digest, tar_size, content) = if plain {
            let unpacked = unpack(decompressed, &fs, cancel)?;
            std::fs::rename(path, place.join("tar"))
                .or_else(|_| std::fs::copy(path, place.join("tar")).map(drop))
                .map_err(ImageError::io("keep a layer's archive"))?;
            unpacked
        } else {
            let tar = File::create(place.join("tar")).map_err(ImageError::io("keep a layer's archive"))?;
            unpack(Tee { reader: decompressed, writer: io::BufWriter::with_capacity(256 * 1024, tar) }, &fs, cancel)?
        };
        if digest != diff_id.0 {
            return Err(ImageError::Invalid(format!("invalid diffID for layer: expected \"{diff_id}\", got \"{digest}\"")));
        }
        self.store().publish_layer(diff_id, &place, tar_size, content).map_err(ImageError::io(format!("publish layer {diff_id}")))?;
        progress.report(part(size));
        Ok(())
    }

    /// Writes the rows of an image whose layers are here.
    fn publish(&self, wish: &Wish, progress: &dyn ProgressSink) -> Result<Loaded, ImageError> {
        let id = wish.id();
        let sizes = self.layer_sizes()?;
        let size = wish.config.rootfs.diff_ids.iter().filter_map(|layer| sizes.get(layer)).sum();
        let row = ImageRow { id: id.clone(), config: wish.config_bytes.clone(), size, tagged: now_nanos(), parent: wish.parent.clone() };
        let names: Vec<String> = wish.references.iter().map(ToString::to_string).collect();
        let before = self.store().put_image(&row, &wish.config.rootfs.diff_ids, &names)?;
        for (reference, old) in wish.references.iter().zip(before) {
            if let Some(old) = old.filter(|old| *old != id.to_string()) {
                let name = reference.familiar();
                progress.report(Progress::Warning(format!(
                    "The image {name} already exists, renaming the old one with ID {old} to empty string"
                )));
            }
        }
        self.event("load", &id.to_string(), &id.to_string());
        Ok(Loaded { id, references: wish.references.iter().map(Reference::familiar).collect() })
    }
}

/// Whether an image can have been made from another one: that one's steps and layers are its first.
fn is_made_from(image: &ImageConfig, parent: &ImageConfig) -> bool {
    image.history.len() > parent.history.len()
        && image.history.starts_with(&parent.history)
        && image.rootfs.diff_ids.starts_with(&parent.rootfs.diff_ids)
}

/// Unpacks a layer's tar: its digest, its size, the bytes of its files. Hashing runs beside the unpacking.
pub(crate) fn unpack(reader: impl Read, fs: &Path, cancel: &Cancel) -> Result<(Digest, u64, u64), ImageError> {
    let directory = File::open(fs).map_err(ImageError::io("open a layer's folder"))?;
    let mut hashing = Hashing::new(reader);
    let extracted = extract(BufReader::with_capacity(256 * 1024, &mut hashing), directory.as_fd(), Mode::Layer, cancel).map_err(
        |error| match error {
            ExtractError::Cancelled => ImageError::Cancelled,
            other => other.into(),
        },
    )?;
    let (_, digest, size) = hashing.finish();
    Ok((digest, size, extracted.content))
}

/// Reads and writes a copy.
struct Tee<R, W> {
    reader: R,
    writer: W,
}

impl<R: Read, W: io::Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..count])?;
        if count == 0 {
            self.writer.flush()?;
        }
        Ok(count)
    }
}

/// Reports how much was read, every few MiB.
struct Counting<'a, R> {
    inner: R,
    count: u64,
    progress: &'a dyn ProgressSink,
    part: &'a dyn Fn(u64) -> Progress,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const STEP: u64 = 4 << 20;
        let count = self.inner.read(buffer)?;
        let before = self.count;
        self.count += count as u64;
        if before / STEP != self.count / STEP {
            self.progress.report((self.part)(self.count));
        }
        Ok(count)
    }
}

/// Writes the files of an archive into a folder.
fn stage(folder: &Path, archive: impl Read, cancel: &Cancel) -> Result<Staged, ImageError> {
    let bad = |error: TarError| match error {
        TarError::Read { source } if source.kind() != io::ErrorKind::InvalidData && source.kind() != io::ErrorKind::InvalidInput => {
            ImageError::Io { action: "read the archive".into(), source }
        }
        other => ImageError::Invalid(format!("cannot read the archive: {}", chain(&other))),
    };
    let decompressed = Decompress::new(archive).map_err(ImageError::io("read the archive"))?;
    let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, decompressed));
    let mut staged = Staged { folder: folder.to_owned(), files: BTreeMap::new(), links: HashMap::new() };
    while let Some(header) = reader.next_entry().map_err(bad)? {
        cancel.check().map_err(|_| ImageError::Cancelled)?;
        let path = normal(&String::from_utf8_lossy(&header.path));
        match header.kind {
            Kind::File => {
                let place = staged.folder.join(format!("file-{}", staged.files.len()));
                let mut file = File::create(&place).map_err(ImageError::io("stage the archive"))?;
                io::copy(&mut reader, &mut file).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => ImageError::Invalid("cannot read the archive: archive is truncated".into()),
                    _ => ImageError::Io { action: "stage the archive".into(), source: error },
                })?;
                staged.files.insert(path, place);
            }
            Kind::Symlink | Kind::Hardlink => {
                let target = String::from_utf8_lossy(&header.link).into_owned();
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = if header.kind == Kind::Symlink { normal(&format!("{folder}/{target}")) } else { normal(&target) };
                staged.links.insert(path, target);
            }
            _ => {}
        }
        if staged.files.len() + staged.links.len() > MAX_FILES {
            return Err(ImageError::Invalid("the archive has too many files".into()));
        }
    }
    Ok(staged)
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

/// A path inside an archive without `.`, `..` and doubled slashes.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Staged {
    fn file(&self, path: &str) -> Option<&PathBuf> {
        let mut path = normal(path);
        for _ in 0..16 {
            if let Some(found) = self.files.get(&path) {
                return Some(found);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let missing = || ImageError::Invalid(format!("invalid archive: {path} is missing"));
        let file = File::open(self.file(path).ok_or_else(missing)?).map_err(ImageError::io(format!("read {path}")))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(ImageError::io(format!("read {path}")))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            Err(ImageError::Invalid(format!("invalid archive: {path} is larger than 8 MiB")))
        } else {
            Ok(bytes)
        }
    }

    /// The images of the archive, whichever its form.
    fn wishes(&self) -> Result<Vec<Wish>, ImageError> {
        if self.file("manifest.json").is_some() {
            let items = ArchiveItem::parse_list(&self.document("manifest.json")?).map_err(invalid)?;
            return items.iter().map(|item| self.docker_wish(item)).collect();
        }
        if self.file("index.json").is_some() {
            let index = Index::parse(&self.document("index.json")?).map_err(invalid)?;
            let mut wishes = Vec::new();
            self.oci_wishes(&index, &mut wishes, 0)?;
            return Ok(wishes);
        }
        Err(ImageError::Invalid("invalid archive: does not contain a manifest.json or index.json".into()))
    }

    fn docker_wish(&self, item: &ArchiveItem) -> Result<Wish, ImageError> {
        let config_bytes = self.document(&item.config)?;
        let references = item
            .repo_tags
            .iter()
            .flatten()
            .map(|tag| Reference::parse_normalized(tag).map(Reference::with_default_tag))
            .collect::<Result<_, _>>();
        let references = references.map_err(|error| ImageError::Invalid(format!("invalid archive: {error}")))?;
        let wish = self.wish(config_bytes, &item.layers, references)?;
        Ok(Wish { parent: item.parent.clone(), ..wish })
    }

    fn oci_wishes(&self, index: &Index, wishes: &mut Vec<Wish>, depth: usize) -> Result<(), ImageError> {
        if depth > 4 {
            return Err(ImageError::Invalid("invalid archive: indexes are nested too deeply".into()));
        }
        for descriptor in &index.manifests {
            let path = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
            let foreign = descriptor
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown" || (!platform.os.is_empty() && platform.os != "linux"));
            if foreign || self.file(&path).is_none() {
                // Attestations and other platforms; partial layouts leave them out.
                continue;
            }
            let bytes = self.verified(&path, &descriptor.digest)?;
            if matches!(descriptor.media_type.as_str(), media::INDEX | media::DOCKER_LIST) {
                self.oci_wishes(&Index::parse(&bytes).map_err(invalid)?, wishes, depth + 1)?;
                continue;
            }
            let manifest = Manifest::parse(&bytes).map_err(invalid)?;
            let config_path = format!("blobs/{}/{}", manifest.config.digest.algorithm(), manifest.config.digest.hex());
            let config = self.verified(&config_path, &manifest.config.digest)?;
            let layers: Vec<String> =
                manifest.layers.iter().map(|layer| format!("blobs/{}/{}", layer.digest.algorithm(), layer.digest.hex())).collect();
            let name = descriptor.annotations.get("io.containerd.image.name");
            let references = match name {
                Some(name) => vec![
                    Reference::parse_normalized(name)
                        .map_err(|error| ImageError::Invalid(format!("invalid archive: {error}")))?
                        .with_default_tag(),
                ],
                None => Vec::new(),
            };
            wishes.push(self.wish(config, &layers, references)?);
        }
        Ok(())
    }

    fn verified(&self, path: &str, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(path)?;
        let found = Digest::sha256_of(&bytes);
        if digest.algorithm() == "sha256" && found != *digest {
            return Err(ImageError::Invalid(format!("invalid archive: {path} has digest {found}")));
        }
        Ok(bytes)
    }

    fn wish(&self, config_bytes: Vec<u8>, layers: &[String], references: Vec<Reference>) -> Result<Wish, ImageError> {
        let config = ImageConfig::parse(&config_bytes).map_err(|error| ImageError::Invalid(error.to_string()))?;
        if config.rootfs.diff_ids.len() != layers.len() {
            let (expected, got) = (config.rootfs.diff_ids.len(), layers.len());
            return Err(ImageError::Invalid(format!("invalid manifest, layers length mismatch: expected {expected}, got {got}")));
        }
        if layers.len() > MAX_LAYERS {
            return Err(ImageError::Invalid(format!("max depth exceeded: {} layers, at most {MAX_LAYERS} can be stacked", layers.len())));
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(ImageError::Invalid(format!("cannot load {} image on linux", sampan_base::sanitize(&config.os))));
        }
        let find = |path: &String| {
            self.file(path)
                .cloned()
                .ok_or_else(|| ImageError::Invalid(format!("invalid archive: {} is missing", sampan_base::sanitize(path))))
        };
        let layers = layers.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Wish { config_bytes, config, layers, references, parent: None })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn invalid(error: sampan_oci::ManifestError) -> ImageError {
    ImageError::Invalid(format!("invalid archive: {error}"))
}
