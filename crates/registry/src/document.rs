//! What a pushed manifest says: which blobs it needs, what it refers to. Pure; the bytes themselves are kept as they came.

use sampan_oci::Digest;
use serde::Deserialize;
use serde_json::Value;

/// Media type of the OCI image manifest.
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the OCI image index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What a manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) artifact_type: String,
    pub(crate) subject: Option<String>,
    /// JSON object, as text.
    pub(crate) annotations: Option<String>,
    /// Digests of the config and of the layers that must be here.
    pub(crate) blobs: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<i64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Option<Vec<Part>>,
    #[serde(default)]
    blobs: Option<Vec<Part>>,
    #[serde(default)]
    manifests: Option<Vec<Part>>,
    #[serde(default)]
    subject: Option<Part>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Part {
    /// A layer that clients fetch from elsewhere.
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// Reads a manifest that came under a `Content-Type`.
///
/// # Errors
/// What is wrong with it, for the client.
pub(crate) fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Document, String> {
    let raw: Raw = serde_json::from_slice(body).map_err(|error| format!("not a manifest: {error}"))?;
    let given = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let given = given.filter(|text| !text.is_empty() && text != "application/json" && text != "application/octet-stream");
    let inner = raw.media_type.clone().filter(|text| !text.is_empty());
    let media_type = match (given, inner) {
        (Some(given), Some(inner)) if given != inner => {
            return Err(format!("the manifest's mediaType is {inner}, its Content-Type {given}"));
        }
        (Some(given), _) => given,
        (None, Some(inner)) => inner,
        (None, None) if raw.manifests.is_some() => INDEX.to_owned(),
        (None, None) => IMAGE.to_owned(),
    };
    if media_type.starts_with(SCHEMA1) || raw.schema_version == Some(1) {
        return Err("manifests of schema version 1 are not accepted: push with a newer client".to_owned());
    }
    if matches!(media_type.as_str(), IMAGE | INDEX | DOCKER_IMAGE | DOCKER_LIST) && raw.schema_version != Some(2) {
        return Err("schemaVersion must be 2".to_owned());
    }
    if matches!(media_type.as_str(), IMAGE | DOCKER_IMAGE) && (raw.config.is_none() || raw.layers.is_none()) {
        return Err("an image manifest needs config and layers".to_owned());
    }
    if matches!(media_type.as_str(), INDEX | DOCKER_LIST) && raw.manifests.is_none() {
        return Err("an image index needs manifests".to_owned());
    }
    let mut parts =
        raw.config.iter().chain(raw.layers.iter().flatten()).chain(raw.blobs.iter().flatten()).chain(raw.manifests.iter().flatten());
    if let Some(part) = parts.find(|part| part.size < 0) {
        return Err(format!("{} has a negative size", part.digest));
    }
    let config_type = raw.config.as_ref().map(|config| config.media_type.clone()).unwrap_or_default();
    let needed = raw.config.iter().chain(raw.layers.iter().flatten()).chain(raw.blobs.iter().flatten());
    let mut blobs: Vec<String> = needed.filter(|part| !part.is_foreign()).map(|part| part.digest.to_string()).collect();
    blobs.sort_unstable();
    blobs.dedup();
    Ok(Document {
        artifact_type: raw.artifact_type.filter(|text| !text.is_empty()).unwrap_or(config_type),
        subject: raw.subject.map(|subject| subject.digest.to_string()),
        annotations: raw.annotations.filter(|map| !map.is_empty()).map(|map| Value::Object(map).to_string()),
        blobs,
        media_type,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn an_image_needs_its_blobs_but_not_foreign_ones() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"c/t","digest":"{A}","size":1}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{B}","size":2}},
            {{"mediaType":"l","digest":"{A}","size":1}}],"subject":{{"mediaType":"m","digest":"{B}","size":3}},"annotations":{{"k":"v"}}}}"#
        );
        let document = parse(Some(IMAGE), text.as_bytes()).unwrap();
        assert_eq!(document.blobs, [A]);
        assert_eq!((document.artifact_type.as_str(), document.subject.as_deref()), ("c/t", Some(B)));
        assert_eq!(document.annotations.as_deref(), Some(r#"{"k":"v"}"#));
        assert_eq!(parse(None, text.as_bytes()).unwrap().media_type, IMAGE);
        assert!(parse(Some(INDEX), text.as_bytes()).unwrap_err().contains("Content-Type"));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[]}"#,
        ] {
            assert!(parse(None, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), br#"{"schemaVersion":1}"#).is_err());
        assert_eq!(parse(None, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap().media_type, INDEX);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _either = parse(None, &bytes);
        }
    }
}
