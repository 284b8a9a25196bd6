//! Which manifest of an index is meant, and what a manifest asks for. Pure: bytes in, a plan out.

use sampan_oci::{Descriptor, Digest, Index, Manifest, Platform, media};
use serde::Deserialize;

use crate::ImageError;
use crate::load::MAX_LAYERS;

/// Most entries of an index that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Types of configs that are an image's.
const CONFIGS: &[&str] = &[media::CONFIG, media::DOCKER_CONFIG, "application/octet-stream", ""];

/// What the config of a plugin is.
const PLUGIN: &str = "application/vnd.docker.plugin.v1+json";

/// What a registry answered.
#[derive(Debug)]
pub(crate) enum Document {
    /// Manifests for several platforms.
    Index(Index),
    /// One image.
    Image(ImageManifest),
}

/// A manifest that passed all checks.
#[derive(Debug)]
pub(crate) struct ImageManifest {
    /// The image's config.
    pub(crate) config: Descriptor,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<LayerBlob>,
}

/// A layer as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// The blob.
    pub(crate) descriptor: Descriptor,
    /// Where it lies instead of the registry.
    pub(crate) urls: Vec<String>,
}

/// Fields that decide what a document is, whatever its type says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<Vec<Urls>>,
}

#[derive(Deserialize)]
struct Urls {
    #[serde(default)]
    urls: Option<Vec<String>>,
}

/// Reads what a registry sent under a media type.
///
/// # Errors
/// What is no manifest, or no image's, or too large.
pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    let bad = |what: String| ImageError::Registry(format!("invalid manifest: {what}"));
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    if kind.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err(schema1());
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    if shape.schema_version == 1 {
        return Err(schema1());
    }
    if !shape.media_type.is_empty() && !kind.is_empty() && is_known(kind) && shape.media_type != kind {
        let (inside, outside) = (sampan_base::sanitize(&shape.media_type), sampan_base::sanitize(kind));
        return Err(bad(format!("it says {inside}, the registry says {outside}")));
    }
    if shape.manifests.is_some() {
        if shape.layers.is_some() {
            return Err(bad("it is an index and an image at once".into()));
        }
        let index = Index::parse(bytes).map_err(|error| bad(error.to_string()))?;
        if index.manifests.len() > MAX_ENTRIES {
            return Err(bad(format!("an index of more than {MAX_ENTRIES} entries")));
        }
        return Ok(Document::Index(index));
    }
    let Some(urls) = shape.layers else { return Err(ImageError::Registry(format!("unsupported manifest media type {kind:?}"))) };
    let manifest = Manifest::parse(bytes).map_err(|error| bad(error.to_string()))?;
    if !CONFIGS.contains(&manifest.config.media_type.as_str()) {
        let config = sampan_base::sanitize(&manifest.config.media_type);
        if kind != media::DOCKER_MANIFEST {
            return Err(ImageError::Unsupported(format!("unsupported media type {config}")));
        }
        let class = if config == PLUGIN { "plugin" } else { "unknown" };
        return Err(ImageError::WrongClass(format!("Encountered remote \"{config}\"({class}) when fetching")));
    }
    if manifest.layers.len() > MAX_LAYERS {
        let count = manifest.layers.len();
        return Err(ImageError::Invalid(format!("max depth exceeded: {count} layers, at most {MAX_LAYERS} can be stacked")));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.media_type.contains("encrypted")) {
        let kind = sampan_base::sanitize(&layer.media_type);
        return Err(ImageError::Unsupported(format!("unsupported layer media type \"{kind}\"")));
    }
    let layers = manifest.layers.into_iter().zip(urls);
    let layers = layers.map(|(descriptor, urls)| LayerBlob { descriptor, urls: urls.urls.unwrap_or_default() }).collect();
    Ok(Document::Image(ImageManifest { config: manifest.config, layers }))
}

fn is_known(kind: &str) -> bool {
    matches!(kind, media::MANIFEST | media::INDEX | media::DOCKER_MANIFEST | media::DOCKER_LIST)
}

fn schema1() -> ImageError {
    ImageError::Unsupported(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of the image to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/"
            .into(),
    )
}

/// The entries of an index that run on a platform, the best first.
pub(crate) fn fitting<'a>(index: &'a Index, platform: &Platform) -> Vec<&'a Descriptor> {
    let is_attestation = |entry: &Descriptor| {
        entry.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
            || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    };
    let mut ranked: Vec<(usize, &Descriptor)> = index
        .manifests
        .iter()
        .filter(|entry| !is_attestation(entry))
        .filter_map(|entry| {
            let rank = match &entry.platform {
                // It may be anything, and is taken where nothing fits better.
                None => Some(usize::MAX),
                Some(own) => platform.rank(own),
            };
            rank.map(|rank| (rank, entry))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

/// The error for an index without such an entry.
pub(crate) fn no_match(platform: &Platform) -> ImageError {
    ImageError::NoPlatform(Box::new(platform.normalized()))
}

/// Whether a document is what was asked for.
pub(crate) fn check_digest(bytes: &[u8], digest: &Digest) -> Result<(), ImageError> {
    let mut hash = sampan_archive::Hasher::like(digest);
    hash.update(bytes);
    let found = hash.finish();
    if found == digest.as_str() {
        return Ok(());
    }
    Err(ImageError::Registry(format!("manifest verification failed for digest {digest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str, kind: &str) -> serde_json::Value {
        let mut parts = platform.split('/');
        let platform = serde_json::json!({"os": parts.next(), "architecture": parts.next(), "variant": parts.next().unwrap_or("")});
        let digest = Digest::sha256_of(platform.to_string().as_bytes());
        serde_json::json!({"mediaType": kind, "digest": digest.to_string(), "size": 1, "platform": platform})
    }

    fn index(platforms: &[&str]) -> Index {
        let entries: Vec<_> = platforms.iter().map(|platform| entry(platform, media::MANIFEST)).collect();
        let text = serde_json::json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}).to_string();
        match parse(media::INDEX, text.as_bytes()).unwrap() {
            Document::Index(index) => index,
            Document::Image(_) => panic!("an index"),
        }
    }

    #[test]
    fn the_best_entry_comes_first_and_attestations_never() {
        let index = index(&["linux/386", "unknown/unknown", "linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7"]);
        for (wanted, first, count) in [
            ("linux/amd64", "linux/amd64", 2),
            ("linux/arm64", "linux/arm64/v8", 3),
            ("linux/arm", "linux/arm/v7", 2),
            ("linux/s390x", "", 0),
        ] {
            let found = fitting(&index, &Platform::parse(wanted).unwrap());
            let best = found.first().and_then(|entry| entry.platform.as_ref()).map(ToString::to_string).unwrap_or_default();
            assert_eq!((best.as_str(), found.len()), (first, count), "{wanted}");
        }
        assert_eq!(
            no_match(&Platform::parse("linux/s390x").unwrap()).to_string(),
            "no matching manifest for linux/s390x in the manifest list entries"
        );
    }

    #[test]
    fn an_entry_without_a_platform_is_taken_where_nothing_fits() {
        let plain =
            |size: u64| serde_json::json!({"mediaType": media::MANIFEST, "digest": Digest::sha256_of(&[1]).to_string(), "size": size});
        let of = |entries: Vec<serde_json::Value>| {
            let text = serde_json::json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}).to_string();
            let Ok(Document::Index(index)) = parse(media::INDEX, text.as_bytes()) else { panic!("an index") };
            fitting(&index, &Platform::parse("linux/amd64").unwrap()).first().map(|entry| entry.size)
        };
        assert_eq!(of(vec![plain(7)]), Some(7));
        assert_eq!(of(vec![plain(7), entry("linux/amd64", media::MANIFEST)]), Some(1));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let digest = Digest::sha256_of(b"x").to_string();
        let blob = |kind: &str| serde_json::json!({"mediaType": kind, "digest": digest, "size": 1});
        let image = |config: &str, layer: &str| {
            serde_json::json!({"schemaVersion": 2, "config": blob(config), "layers": [blob(layer)]}).to_string()
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        // Docker takes layers for what they are, whatever they are called.
        for layer in [gzip, "application/x-other"] {
            assert!(matches!(parse(media::MANIFEST, image(media::CONFIG, layer).as_bytes()), Ok(Document::Image(_))));
        }
        for (kind, text, part) in [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}".to_owned(), "schema 1"),
            ("", r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
            (media::MANIFEST, "[".to_owned(), "invalid manifest"),
            (media::MANIFEST, "{}".to_owned(), "unsupported manifest media type"),
            (media::MANIFEST, r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#.to_owned(), "at once"),
            (media::MANIFEST, image("application/vnd.cncf.helm.config.v1+json", gzip), "unsupported media type application/vnd.cncf.helm"),
            (media::DOCKER_MANIFEST, image(PLUGIN, gzip), "Encountered remote \"application/vnd.docker.plugin.v1+json\"(plugin) when"),
            (media::DOCKER_MANIFEST, image("a/b", gzip), "Encountered remote \"a/b\"(unknown) when fetching"),
            (media::MANIFEST, image(media::CONFIG, &format!("{gzip}+encrypted")), "unsupported layer media type"),
            (media::MANIFEST, format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::INDEX), "the registry says"),
        ] {
            let error = parse(kind, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(kind in "[a-z./+]{0,20}", bytes: Vec<u8>) {
            let _either = parse(&kind, &bytes);
        }
    }
}
