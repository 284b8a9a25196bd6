//! Manifests and indexes, and the list in a docker-archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform};

/// The largest manifest that is read.
const LIMIT: usize = 4 << 20;

/// Media types.
pub mod media {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker image manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than 4 MiB.
    #[error("manifest is larger than 4 MiB")]
    TooLarge,
    /// Not JSON of the right form.
    #[error("invalid manifest: {0}")]
    Malformed(String),
}

/// What points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Which.
    pub digest: Digest,
    /// How long.
    pub size: u64,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Its own type.
    #[serde(default)]
    pub media_type: String,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "crate::config::nullable")]
    pub layers: Vec<Descriptor>,
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Its own type.
    #[serde(default)]
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveItem {
    /// Path of the config.
    pub config: String,
    /// References; `null` for none.
    pub repo_tags: Option<Vec<String>>,
    /// Paths of the layers, lowest first.
    #[serde(default, deserialize_with = "crate::config::nullable")]
    pub layers: Vec<String>,
    /// The image that it was made from, where the archive holds that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The layers by diff id, for readers that want more than paths.
    #[serde(skip_deserializing, skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_sources: BTreeMap<String, Descriptor>,
}

macro_rules! parsed {
    ($($name:ty),*) => {$(
        impl $name {
            /// Reads it.
            ///
            /// # Errors
            /// [`ManifestError`].
            pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
                if bytes.len() > LIMIT {
                    return Err(ManifestError::TooLarge);
                }
                serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))
            }
        }
    )*};
}

parsed!(Manifest, Index);

impl ArchiveItem {
    /// Reads the list of a docker-archive.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, ManifestError> {
        if bytes.len() > LIMIT {
            return Err(ManifestError::TooLarge);
        }
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))
    }
}
