//! The manifest of a push: the one that the image came with, byte for byte, or a new one. Pure.

use std::fmt::Write as _;

use sampan_oci::{Digest, ImageId, media};
use sampan_store::ManifestRow;

use crate::pull::{ImageManifest, parse_image};

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size: u64,
    /// It lies elsewhere and is not pushed.
    pub(super) is_foreign: bool,
}

/// The kept manifest that describes an image of so many layers, the newest first.
pub(super) fn kept(rows: Vec<ManifestRow>, id: &ImageId, layers: usize) -> Option<(ManifestRow, ImageManifest)> {
    rows.into_iter().find_map(|row| {
        let manifest = parse_image(&row.media_type, &row.bytes)?;
        (manifest.config.digest == id.0 && manifest.layers.len() == layers).then_some((row, manifest))
    })
}

/// Whether a blob is of the form that Docker's own manifests hold.
fn is_gzip(kind: &str) -> bool {
    kind == media::DOCKER_LAYER || kind.ends_with("+gzip") || kind.ends_with(".gzip")
}

/// A new manifest with its media type: Docker's form, as its engine prints it; where a layer is not compressed by gzip OCI's.
pub(super) fn print(id: &ImageId, config_size: u64, layers: &[Part]) -> ManifestRow {
    let docker = layers.iter().all(|layer| is_gzip(&layer.media_type));
    let (manifest, config) = if docker { (media::DOCKER_MANIFEST, media::DOCKER_CONFIG) } else { (media::MANIFEST, media::CONFIG) };
    let mut text = format!("{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{manifest}\",\n   \"config\": ");
    descriptor(&mut text, 1, (config, config_size, &id.0));
    text.push_str(",\n   \"layers\": [");
    for (number, layer) in layers.iter().enumerate() {
        text.push_str(if number == 0 { "\n      " } else { ",\n      " });
        let kind = match docker {
            true => media::DOCKER_LAYER,
            false if is_gzip(&layer.media_type) => "application/vnd.oci.image.layer.v1.tar+gzip",
            false if layer.media_type.ends_with("zstd") => "application/vnd.oci.image.layer.v1.tar+zstd",
            false => media::LAYER,
        };
        descriptor(&mut text, 2, (kind, layer.size, &layer.digest));
    }
    text.push_str(if layers.is_empty() { "]\n}" } else { "\n   ]\n}" });
    let bytes = text.into_bytes();
    ManifestRow { digest: Digest::sha256_of(&bytes), media_type: manifest.to_owned(), bytes }
}

fn descriptor(text: &mut String, depth: usize, (kind, size, digest): (&str, u64, &Digest)) {
    let outer = "   ".repeat(depth);
    let _infallible = write!(
        text,
        "{{\n{outer}   \"mediaType\": \"{kind}\",\n{outer}   \"size\": {size},\n{outer}   \"digest\": \"{digest}\"\n{outer}}}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: &str, number: u8) -> Part {
        Part { digest: Digest::sha256_of(&[number]), media_type: kind.into(), size: u64::from(number), is_foreign: false }
    }

    #[test]
    fn a_new_manifest_has_dockers_form_and_is_found_again() {
        let id = ImageId(Digest::sha256_of(b"config"));
        let row = print(&id, 7, &[part(media::DOCKER_LAYER, 1), part("application/vnd.oci.image.layer.v1.tar+gzip", 2)]);
        let text = String::from_utf8(row.bytes.clone()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["layers"][1]["mediaType"], media::DOCKER_LAYER);
        assert!(text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\n      \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 7,\n"));
        assert!(text.ends_with("\"\n      }\n   ]\n}"));
        assert!(kept(vec![row.clone()], &id, 2).is_some());
        assert!(kept(vec![row.clone()], &id, 3).is_none());
        assert!(kept(vec![row], &ImageId(Digest::sha256_of(b"other")), 2).is_none());
        let zstd = print(&id, 7, &[part("application/vnd.oci.image.layer.v1.tar+zstd", 1), part(media::DOCKER_LAYER, 2)]);
        assert_eq!(zstd.media_type, media::MANIFEST);
        assert!(kept(vec![zstd, print(&id, 7, &[])], &id, 0).is_some());
    }
}
