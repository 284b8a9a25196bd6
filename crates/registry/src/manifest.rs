//! What a manifest says about other objects. Pure; takes any bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Code, RegistryError, Result};
use crate::name::{Digest, Hasher};

/// The largest manifest that is taken.
pub const LIMIT: usize = 4 << 20;
/// The most objects that a manifest may name.
const REFERENCES: usize = 10_000;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a registry must know of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The type under which it is served.
    pub media_type: String,
    /// For listings of referrers.
    pub artifact_type: Option<String>,
    /// What it is about.
    pub subject: Option<Digest>,
    /// Blobs that must be there.
    pub blobs: Vec<Digest>,
    /// Manifests that may be there.
    pub children: Vec<Digest>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Option<Vec<Part>>,
    #[serde(default)]
    manifests: Option<Vec<Part>>,
    #[serde(default)]
    subject: Option<Part>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    data: Option<String>,
}

/// A line in a listing of referrers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Type of the manifest.
    pub media_type: String,
    /// Which.
    pub digest: String,
    /// How long.
    pub size: u64,
    /// Type of the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn invalid(message: impl Into<String>) -> RegistryError {
    RegistryError::say(Code::ManifestInvalid, message)
}

/// Reads a manifest that came with a `Content-Type`.
///
/// # Errors
/// `MANIFEST_INVALID`, or `SIZE_INVALID` above the limit.
pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Facts> {
    if body.len() > LIMIT {
        return Err(too_large());
    }
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let content_type = content_type.filter(|text| !text.is_empty() && text != "application/json" && text != "application/octet-stream");
    if content_type.as_deref().is_some_and(|text| text.starts_with("application/vnd.docker.distribution.manifest.v1+")) {
        return Err(invalid("manifests of schema version 1 are not taken: push with a newer client"));
    }
    let document: Document =
        serde_json::from_slice(body).map_err(|error| invalid(format!("manifest is no valid JSON of its type: {error}")))?;
    if document.schema_version != 2 {
        return Err(invalid("schemaVersion of a manifest must be 2"));
    }
    let media_type = media_type(content_type, &document)?;
    facts(media_type, document)
}

/// A manifest above the limit.
#[must_use]
pub fn too_large() -> RegistryError {
    RegistryError::say(Code::SizeInvalid, "manifest is larger than 4 MiB").status(413)
}

fn media_type(content_type: Option<String>, document: &Document) -> Result<String> {
    let inside = document.media_type.clone().filter(|text| !text.is_empty());
    let chosen = match (content_type, inside) {
        (Some(outside), Some(inside)) if outside != inside => {
            return Err(invalid("mediaType of the manifest is not that of the request's Content-Type"));
        }
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) if document.manifests.is_some() => OCI_INDEX.to_owned(),
        (None, None) => OCI_MANIFEST.to_owned(),
    };
    if [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&chosen.as_str()) {
        Ok(chosen)
    } else {
        Err(invalid("media type of the manifest is none that this registry takes").detail(sampan_base::sanitize(&chosen)))
    }
}

fn facts(media_type: String, document: Document) -> Result<Facts> {
    let is_index = media_type == OCI_INDEX || media_type == DOCKER_LIST;
    let (layers, manifests) = (document.layers.unwrap_or_default(), document.manifests.unwrap_or_default());
    if layers.len() + manifests.len() > REFERENCES {
        return Err(invalid("manifest names too many objects"));
    }
    let mut blobs = Vec::new();
    let mut children = Vec::new();
    let mut config_type = None;
    if is_index {
        if document.config.is_some() || !layers.is_empty() {
            return Err(invalid("an index has no config and no layers"));
        }
        for part in &manifests {
            children.push(digest(part)?);
        }
    } else {
        if !manifests.is_empty() {
            return Err(invalid("an image manifest has no manifests"));
        }
        let config = document.config.ok_or_else(|| invalid("manifest has no config"))?;
        for part in layers.iter().chain([&config]) {
            let digest = digest(part)?;
            if must_be_there(part, &digest) && !blobs.contains(&digest) {
                blobs.push(digest);
            }
        }
        config_type = config.media_type;
    }
    let subject = document.subject.as_ref().map(digest).transpose()?;
    let artifact_type = document.artifact_type.or(config_type).filter(|text| !text.is_empty());
    Ok(Facts { media_type, artifact_type, subject, blobs, children, annotations: document.annotations.unwrap_or_default() })
}

fn digest(part: &Part) -> Result<Digest> {
    if part.size > i64::MAX.unsigned_abs() {
        return Err(invalid("a size in the manifest is too large"));
    }
    Digest::parse(&part.digest).ok_or_else(|| invalid("a digest in the manifest is invalid").detail(sampan_base::sanitize(&part.digest)))
}

/// Layers that lie elsewhere, and content that stands in the manifest itself, need not be here.
fn must_be_there(part: &Part, digest: &Digest) -> bool {
    let kind = part.media_type.as_deref().unwrap_or_default();
    let elsewhere =
        kind.contains("nondistributable") || kind.contains("rootfs.foreign") || part.urls.as_ref().is_some_and(|urls| !urls.is_empty());
    let inside = part.data.as_ref().is_some_and(|data| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
        Hasher::of(digest.algorithm(), &bytes) == *digest
    });
    !elsewhere && !inside
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn part(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{D}","size":5}}"#)
    }

    #[test]
    fn an_image_names_its_blobs_and_subject() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}],"subject":{},"annotations":{{"a":"b"}}}}"#,
            part("x/config"),
            part("x/layer"),
            part("application/vnd.oci.image.layer.nondistributable.v1.tar"),
            part(OCI_MANIFEST)
        );
        let facts = parse(None, text.as_bytes()).unwrap();
        assert_eq!(facts.media_type, OCI_MANIFEST);
        assert_eq!(facts.artifact_type.as_deref(), Some("x/config"));
        assert_eq!((facts.blobs.len(), facts.subject.is_some(), facts.annotations.len()), (1, true, 1));
    }

    #[test]
    fn types_must_agree() {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, part(OCI_MANIFEST));
        assert_eq!(parse(None, index.as_bytes()).unwrap().media_type, OCI_INDEX);
        assert_eq!(parse(Some(DOCKER_LIST), index.as_bytes()).unwrap().children.len(), 1);
        assert_eq!(parse(Some("application/json; charset=utf-8"), index.as_bytes()).unwrap().media_type, OCI_INDEX);
        assert!(parse(Some(OCI_MANIFEST), index.as_bytes()).is_err());
        let named = index.replace("\"schemaVersion\":2", &format!("\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\""));
        assert!(parse(Some(DOCKER_LIST), named.as_bytes()).is_err());
        assert!(parse(Some("text/plain"), index.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"layers":[]}"#,
            "{\"schemaVersion\":2",
        ] {
            assert!(parse(None, bad.as_bytes()).is_err(), "{bad}");
        }
        let wrong = format!(r#"{{"schemaVersion":2,"config":{}}}"#, part("x").replace("2cf", "2CF"));
        assert!(parse(None, wrong.as_bytes()).is_err());
        assert!(parse(Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), b"{}").is_err());
        assert_eq!(parse(None, &vec![b' '; LIMIT + 1]).unwrap_err().status, 413);
    }

    #[test]
    fn data_in_the_manifest_need_not_be_uploaded() {
        let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":5,"data":"aGVsbG8="}},"layers":[]}}"#);
        assert!(parse(None, text.as_bytes()).unwrap().blobs.is_empty());
        assert_eq!(parse(None, text.replace("aGVs", "aGVt").as_bytes()).unwrap().blobs.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>, kind: Option<String>) {
            drop(parse(kind.as_deref(), &bytes));
        }
    }
}
