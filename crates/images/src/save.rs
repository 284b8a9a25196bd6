//! Saving images: one archive that is a docker-archive and an OCI layout at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use sampan_archive::tar::{Header, Kind, Writer};
use sampan_base::Cancel;
use sampan_oci::{ArchiveItem, Descriptor, Digest, Index, Manifest, Platform, Reference, media};

use crate::{Image, ImageError, Images};

impl Images {
    /// What a name stands for in a save: one image with that name, or all tags of a repository that is named without one.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] with the name as typed, [`ImageError::Platform`].
    pub fn resolve_saved(&self, name: &str, platform: Option<&Platform>) -> Result<Vec<(Image, Option<String>)>, ImageError> {
        let typed = Reference::parse_normalized(name).ok();
        if let Some(repository) = typed.as_ref().filter(|typed| typed.tag().is_none() && typed.digest().is_none()) {
            let of = |name: &String| Reference::parse_normalized(name).is_ok_and(|other| other.repository() == repository.repository());
            let mut found = Vec::new();
            for image in self.all()? {
                let names: Vec<String> = image.references.iter().filter(|name| of(name)).cloned().collect();
                found.extend(names.into_iter().map(|name| (image.clone(), Some(name))));
            }
            if !found.is_empty() {
                return found.into_iter().map(|(image, name)| Ok((fitting(image, platform, name.as_deref())?, name))).collect();
            }
        }
        let image = self.resolve(name).map_err(|error| untagged(error, name))?;
        let typed = typed.map(|reference| reference.with_default_tag().familiar()).filter(|name| image.references.contains(name));
        Ok(vec![(fitting(image, platform, Some(name))?, typed)])
    }

    /// Writes images with all they need. A name that is a repository without tag stands for all its tags.
    ///
    /// # Errors
    /// [`ImageError`]; a stream that breaks off is not an archive.
    pub fn save(&self, names: &[String], out: &mut dyn Write, cancel: &Cancel) -> Result<(), ImageError> {
        let mut wanted: BTreeMap<String, (Image, BTreeSet<String>)> = BTreeMap::new();
        for name in names {
            for (image, typed) in self.resolve_saved(name, None)? {
                let entry = wanted.entry(image.id.to_string()).or_insert_with(|| (image, BTreeSet::new()));
                entry.1.extend(typed);
            }
        }
        let images: Vec<_> = wanted.into_values().collect();
        let archive = Archive {
            images: self,
            writer: Writer::new(out),
            written: BTreeSet::new(),
            items: Vec::new(),
            manifests: Vec::new(),
            repositories: BTreeMap::new(),
        };
        archive.write(&images, cancel).map_err(ImageError::io("write the archive"))
    }
}

/// Refuses an image of another platform than the wanted one.
fn fitting(image: Image, platform: Option<&Platform>, name: Option<&str>) -> Result<Image, ImageError> {
    let have = image.config.platform();
    match platform {
        Some(wanted) if !have.fits(wanted) => {
            let name = name.unwrap_or_default().to_owned();
            Err(ImageError::Platform { name, have: Box::new(have), wanted: Box::new(wanted.clone()) })
        }
        _ => Ok(image),
    }
}

/// An archive that is being written.
struct Archive<'a, W: Write> {
    images: &'a Images,
    writer: Writer<W>,
    /// Digests of the blobs that are in it.
    written: BTreeSet<String>,
    items: Vec<ArchiveItem>,
    manifests: Vec<Descriptor>,
    /// The oldest form's list: repository, tag, the uppermost layer.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl<W: Write> Archive<'_, W> {
    fn write(mut self, images: &[(Image, BTreeSet<String>)], cancel: &Cancel) -> io::Result<()> {
        let newest = images.iter().map(|(image, _)| image.created()).max().unwrap_or_default();
        for folder in ["blobs", "blobs/sha256"] {
            let header = Header { mtime: (newest, 0), ..Header::new(Kind::Directory, folder) };
            self.writer.append(&header, &mut io::empty())?;
        }
        let ids: BTreeSet<String> = images.iter().map(|(image, _)| image.id.to_string()).collect();
        for (image, names) in images {
            let parent = image.parent.clone().filter(|parent| ids.contains(parent));
            self.image(image, names, parent, cancel)?;
        }
        let index = Index { schema_version: 2, media_type: media::INDEX.into(), manifests: self.manifests };
        document(&mut self.writer, "index.json", &serde_json::to_vec(&index)?)?;
        document(&mut self.writer, "manifest.json", &serde_json::to_vec(&self.items)?)?;
        document(&mut self.writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !self.repositories.is_empty() {
            document(&mut self.writer, "repositories", &serde_json::to_vec(&self.repositories)?)?;
        }
        self.writer.finish().map(drop)
    }

    fn image(&mut self, image: &Image, names: &BTreeSet<String>, parent: Option<String>, cancel: &Cancel) -> io::Result<()> {
        let mut layers = Vec::new();
        for layer in image.layers() {
            cancel.check().map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
            let (tar, size) = self.images.layer_tar(layer)?;
            self.blob(&layer.0, size, image.created(), tar)?;
            layers.push(descriptor(media::LAYER, &layer.0, size));
        }
        let rows = self.images.store().images().map_err(io::Error::other)?;
        let config = rows.into_iter().find(|row| row.id == image.id).ok_or(io::ErrorKind::NotFound)?.config;
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        self.items.push(ArchiveItem {
            config: path(&image.id.0),
            repo_tags: if names.is_empty() { None } else { Some(names.iter().cloned().collect()) },
            layers: layers.iter().map(|layer| path(&layer.digest)).collect(),
            parent,
            layer_sources: layers.iter().map(|layer| (layer.digest.to_string(), layer.clone())).collect(),
        });
        if let Some(top) = layers.last() {
            for reference in names.iter().filter_map(|name| Reference::parse_normalized(name).ok()) {
                let tags = self.repositories.entry(reference.familiar_name()).or_default();
                tags.insert(reference.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned());
            }
        }
        let described = descriptor(media::CONFIG, &image.id.0, config.len() as u64);
        let manifest = serde_json::to_vec(&Manifest { schema_version: 2, media_type: media::MANIFEST.into(), config: described, layers })?;
        let digest = Digest::sha256_of(&manifest);
        for (digest, bytes) in [(&image.id.0, &config), (&digest, &manifest)] {
            self.blob(digest, bytes.len() as u64, image.created(), &bytes[..])?;
        }
        self.manifests.extend(describe(&digest, manifest.len() as u64, names));
        Ok(())
    }

    /// Writes a blob unless it is there; it is as old as its image.
    fn blob(&mut self, digest: &Digest, size: u64, created: i64, mut content: impl Read) -> io::Result<()> {
        if !self.written.insert(digest.to_string()) {
            return Ok(());
        }
        let header = Header { size, mtime: (created, 0), ..Header::new(Kind::File, format!("blobs/sha256/{}", digest.hex())) };
        self.writer.append(&header, &mut content)
    }
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor { media_type: kind.into(), digest: digest.clone(), size, annotations: BTreeMap::new(), platform: None }
}

/// Save names an image that is missing as it was typed.
pub(crate) fn untagged(error: ImageError, name: &str) -> ImageError {
    match error {
        ImageError::NotFound(_) => ImageError::NotFound(name.to_owned()),
        other => other,
    }
}

/// One entry of the index for each name, or one without a name.
fn describe(digest: &Digest, size: u64, names: &BTreeSet<String>) -> Vec<Descriptor> {
    let plain = descriptor(media::MANIFEST, digest, size);
    if names.is_empty() {
        return vec![plain];
    }
    let named = names.iter().filter_map(|name| Reference::parse_normalized(name).ok()).map(|reference| {
        let tag = reference.tag().unwrap_or_default().to_owned();
        let annotations =
            [("io.containerd.image.name".to_owned(), reference.to_string()), ("org.opencontainers.image.ref.name".to_owned(), tag)];
        Descriptor { annotations: annotations.into(), ..plain.clone() }
    });
    named.collect()
}

fn document<W: Write>(writer: &mut Writer<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new(Kind::File, name);
    header.size = bytes.len() as u64;
    writer.append(&header, &mut &bytes[..])
}
