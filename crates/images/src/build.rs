//! Images made here: imported from a tar, committed from a container.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use sampan_archive::{Decompress, Hashing};
use sampan_base::Cancel;
use sampan_layers::{PackMode, pack};
use sampan_oci::{ContainerConfig, DiffId, Digest, History, ImageConfig, ImageId, Platform, Reference, RootFs};
use sampan_store::ImageRow;
use sampan_transfer::{FetchRequest, Fetched, TransferError};

use crate::load::unpack;
use crate::pull::cancelled;
use crate::{Image, ImageError, Images, now_nanos, unambiguous};

/// What an import presets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// The image's name as typed; empty: none.
    pub reference: String,
    /// Commit message.
    pub message: String,
    /// What runs.
    pub config: ContainerConfig,
    /// Empty: the host's.
    pub platform: Option<Platform>,
}

/// What a commit presets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitOptions {
    /// The image's name as typed; empty: none.
    pub reference: String,
    /// Who.
    pub author: String,
    /// Commit message.
    pub comment: String,
    /// What runs, complete.
    pub config: ContainerConfig,
    /// The container's command, for the history.
    pub created_by: String,
}

impl Images {
    /// Opens an archive at an address, for an import.
    ///
    /// # Errors
    /// [`ImageError::Transfer`].
    pub fn download(&self, url: &str, cancel: &Cancel) -> Result<Fetched, ImageError> {
        let request = FetchRequest { url: url.to_owned(), limit: u64::MAX, etag: None, checked: false };
        self.client()?.fetch(&request, cancel).map_err(|error| match error {
            TransferError::Unwelcome { url, status } => ImageError::Registry(format!("failed to GET {url} with status {status}")),
            other => cancelled(other),
        })
    }

    /// Makes an image of one layer from an archive of files.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is left then.
    pub fn import(&self, archive: impl Read, options: &ImportOptions, cancel: &Cancel) -> Result<ImageId, ImageError> {
        let reference = name(&options.reference)?;
        self.adding(|| self.import_named(archive, options, reference.as_ref(), cancel))
    }

    fn import_named(
        &self,
        archive: impl Read,
        options: &ImportOptions,
        reference: Option<&Reference>,
        cancel: &Cancel,
    ) -> Result<ImageId, ImageError> {
        let decompressed = Decompress::new(archive).map_err(ImageError::io("read the archive"))?;
        let diff_id = self.layer_from(decompressed, cancel)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let now = jiff::Timestamp::now().to_string();
        let config = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config: options.config.clone(),
            created: Some(now.clone()),
            comment: options.message.clone(),
            history: vec![History { created: Some(now), comment: options.message.clone(), ..History::default() }],
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
            ..ImageConfig::default()
        };
        let id = self.put(&config, reference, None)?;
        self.event("import", &id.to_string(), reference.map(Reference::familiar).unwrap_or_default().as_str());
        Ok(id)
    }

    /// Makes an image from a container's upper directory on top of its image.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is left then.
    pub fn commit(
        &self,
        upper: BorrowedFd<'_>,
        parent: Option<&Image>,
        options: &CommitOptions,
        cancel: &Cancel,
    ) -> Result<ImageId, ImageError> {
        let reference = name(&options.reference)?;
        self.adding(|| self.commit_named(upper, parent, options, reference.as_ref(), cancel))
    }

    fn commit_named(
        &self,
        upper: BorrowedFd<'_>,
        parent: Option<&Image>,
        options: &CommitOptions,
        reference: Option<&Reference>,
        cancel: &Cancel,
    ) -> Result<ImageId, ImageError> {
        let staging = self.store().staging().map_err(ImageError::io("make a staging folder"))?;
        let packed = (|| {
            let path = staging.join("tar");
            let file = io::BufWriter::with_capacity(256 * 1024, File::create(&path)?);
            pack(upper, file, PackMode::Upper, cancel)?;
            File::open(&path)
        })();
        let diff_id = packed.map_err(ImageError::io("pack the container's changes")).and_then(|file| self.layer_from(file, cancel));
        if let Err(error) = self.store().discard(&staging) {
            tracing::warn!(%error, "cannot remove a staging folder");
        }
        let now = jiff::Timestamp::now().to_string();
        let base = parent.map(|image| image.config.clone()).unwrap_or_default();
        let host = Platform::host();
        let or = |value: &String, default: String| if value.is_empty() { default } else { value.clone() };
        let mut config = ImageConfig {
            architecture: or(&base.architecture, host.architecture),
            os: or(&base.os, host.os),
            variant: base.variant,
            config: options.config.clone(),
            created: Some(now.clone()),
            author: options.author.clone(),
            comment: options.comment.clone(),
            history: base.history,
            rootfs: RootFs { kind: "layers".into(), diff_ids: base.rootfs.diff_ids },
            ..ImageConfig::default()
        };
        config.history.push(History {
            created: Some(now),
            created_by: options.created_by.clone(),
            author: options.author.clone(),
            comment: options.comment.clone(),
            empty_layer: false,
        });
        config.rootfs.diff_ids.push(diff_id?);
        self.put(&config, reference, parent.map(|image| image.id.to_string()))
    }

    /// Unpacks and publishes a layer whose digest is not known before.
    fn layer_from(&self, reader: impl Read, cancel: &Cancel) -> Result<DiffId, ImageError> {
        let folder = self.store().staging().map_err(ImageError::io("make a staging folder"))?;
        let result = (|| {
            let place = folder.join("layer");
            let fs = place.join("fs");
            std::fs::create_dir_all(&fs).map_err(ImageError::io("make a layer's folder"))?;
            let tar = File::create(place.join("tar")).map_err(ImageError::io("keep a layer's archive"))?;
            let mut writer = Hashing::new(io::BufWriter::with_capacity(256 * 1024, tar));
            let tee = Copying { reader, writer: &mut writer };
            let (digest, size, content) = unpack(tee, &fs, cancel)?;
            io::Write::flush(&mut writer).map_err(ImageError::io("keep a layer's archive"))?;
            let diff_id = DiffId(digest);
            self.store().publish_layer(&diff_id, &place, size, content).map_err(ImageError::io(format!("publish layer {diff_id}")))?;
            Ok(diff_id)
        })();
        if let Err(error) = self.store().discard(&folder) {
            tracing::warn!(%error, "cannot remove a staging folder");
        }
        result
    }

    fn put(&self, config: &ImageConfig, reference: Option<&Reference>, parent: Option<String>) -> Result<ImageId, ImageError> {
        let bytes = config.print();
        let id = ImageId(Digest::sha256_of(&bytes));
        let sizes = self.layer_sizes()?;
        let size = config.rootfs.diff_ids.iter().filter_map(|layer| sizes.get(layer)).sum();
        let row = ImageRow { id: id.clone(), config: bytes, size, tagged: now_nanos(), parent };
        let _change = self.begin();
        let names: Vec<String> = reference.iter().map(ToString::to_string).collect();
        self.store().put_image(&row, &config.rootfs.diff_ids, &names)?;
        Ok(id)
    }
}

fn name(typed: &str) -> Result<Option<Reference>, ImageError> {
    if typed.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse_normalized(typed)?;
    if reference.digest().is_some() {
        return Err(ImageError::Invalid("cannot import digest reference".into()));
    }
    unambiguous(&reference)?;
    Ok(Some(reference.with_default_tag()))
}

/// Reads and writes a copy.
struct Copying<'a, R, W> {
    reader: R,
    writer: &'a mut W,
}

impl<R: Read, W: io::Write> Read for Copying<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..count])?;
        Ok(count)
    }
}
