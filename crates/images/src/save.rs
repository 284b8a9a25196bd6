//! Saving images: one archive that is a docker-archive and an OCI layout at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use sampan_archive::tar::{Header, Kind, Writer};
use sampan_base::Cancel;
use sampan_oci::{ArchiveItem, Descriptor, Digest, Index, Manifest, Reference, media};

use crate::{Image, ImageError, Images};

impl Images {
    /// Writes images with all they need. A name that is a repository without tag stands for all its tags.
    ///
    /// # Errors
    /// [`ImageError`]; a stream that breaks off is not an archive.
    pub fn save(&self, names: &[String], out: &mut dyn Write, cancel: &Cancel) -> Result<(), ImageError> {
        let mut wanted: BTreeMap<String, (Image, BTreeSet<String>)> = BTreeMap::new();
        for name in names {
            let image = self.resolve(name).map_err(|error| untagged(error, name))?;
            let typed = Reference::parse_normalized(name).ok().map(|reference| reference.with_default_tag().familiar());
            let entry = wanted.entry(image.id.to_string()).or_insert_with(|| (image, BTreeSet::new()));
            entry.1.extend(typed.filter(|name| entry.0.references.contains(name)));
        }
        let images: Vec<_> = wanted.into_values().collect();
        self.write(&images, out, cancel).map_err(ImageError::io("write the archive"))
    }

    fn write(&self, images: &[(Image, BTreeSet<String>)], out: &mut dyn Write, cancel: &Cancel) -> io::Result<()> {
        let mut writer = Writer::new(out);
        let mut written: BTreeSet<String> = BTreeSet::new();
        for folder in ["blobs", "blobs/sha256"] {
            writer.append(&Header::new(Kind::Directory, folder), &mut io::empty())?;
        }
        let (mut items, mut manifests) = (Vec::new(), Vec::new());
        for (image, names) in images {
            let mut layers = Vec::new();
            for layer in image.layers() {
                cancel.check().map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
                let (tar, size) = self.layer_tar(layer)?;
                if written.insert(layer.to_string()) {
                    blob(&mut writer, &layer.0, size, tar)?;
                }
                layers.push(Descriptor {
                    media_type: media::LAYER.into(),
                    digest: layer.0.clone(),
                    size,
                    annotations: BTreeMap::new(),
                    platform: None,
                });
            }
            let rows = self.store().images().map_err(io::Error::other)?;
            let config = rows.into_iter().find(|row| row.id == image.id).ok_or(io::ErrorKind::NotFound)?.config;
            let paths = layers.iter().map(|layer| format!("blobs/sha256/{}", layer.digest.hex())).collect();
            items.push(ArchiveItem {
                config: format!("blobs/sha256/{}", image.id.0.hex()),
                repo_tags: if names.is_empty() { None } else { Some(names.iter().cloned().collect()) },
                layers: paths,
            });
            let described = Descriptor {
                media_type: media::CONFIG.into(),
                digest: image.id.0.clone(),
                size: config.len() as u64,
                annotations: BTreeMap::new(),
                platform: None,
            };
            let manifest =
                serde_json::to_vec(&Manifest { schema_version: 2, media_type: media::MANIFEST.into(), config: described, layers })?;
            let digest = Digest::sha256_of(&manifest);
            for (digest, bytes) in [(&image.id.0, &config), (&digest, &manifest)] {
                if written.insert(digest.to_string()) {
                    blob(&mut writer, digest, bytes.len() as u64, &bytes[..])?;
                }
            }
            manifests.extend(describe(&digest, manifest.len() as u64, names));
        }
        let index = Index { schema_version: 2, media_type: media::INDEX.into(), manifests };
        document(&mut writer, "index.json", &serde_json::to_vec(&index)?)?;
        document(&mut writer, "manifest.json", &serde_json::to_vec(&items)?)?;
        document(&mut writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        writer.finish().map(drop)
    }
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
    let plain =
        Descriptor { media_type: media::MANIFEST.into(), digest: digest.clone(), size, annotations: BTreeMap::new(), platform: None };
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

fn blob<W: Write>(writer: &mut Writer<W>, digest: &Digest, size: u64, mut content: impl Read) -> io::Result<()> {
    let mut header = Header::new(Kind::File, format!("blobs/sha256/{}", digest.hex()));
    header.size = size;
    writer.append(&header, &mut content)
}

fn document<W: Write>(writer: &mut Writer<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new(Kind::File, name);
    header.size = bytes.len() as u64;
    writer.append(&header, &mut &bytes[..])
}
