//! What the client answers with.

use sampan_oci::{Descriptor, Digest};

/// A manifest or an index as the registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its `Content-Type`, or the `mediaType` inside where that says nothing.
    pub media_type: String,
    /// The exact bytes, at most 4 MiB.
    pub bytes: Vec<u8>,
    /// The digest of the bytes: checked where it was asked for by digest, computed otherwise.
    pub digest: Digest,
}

impl FetchedManifest {
    /// What points to it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.bytes.len() as u64,
            annotations: std::collections::BTreeMap::new(),
            platform: None,
        }
    }
}

/// What a registry says to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAnswer {
    /// `Login Succeeded`.
    pub status: String,
    /// A refresh token to keep instead of the password, where the registry gave one.
    pub identity_token: Option<String>,
}

/// One repository that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchItem {
    /// Its name.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether the registry itself cares for it.
    pub official: bool,
    /// Whether it is built by the registry.
    pub automated: bool,
}
