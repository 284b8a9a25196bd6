//! What refers to a manifest: by the specification's list, or by the tag that stands in its place.

use http::header::ACCEPT;
use http::{Method, StatusCode};
use sampan_oci::{Descriptor, Digest, Reference, media};
use serde::Deserialize;

use crate::exchange::Call;
use crate::registry::{Registry, scope};
use crate::{TransferError, lists, manifest};

/// How many are kept.
const MOST: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "artifactType", default)]
    artifact_type: Option<String>,
    #[serde(flatten)]
    descriptor: Descriptor,
}

/// Lists what refers to a manifest; all of it, or that of one type.
pub(crate) async fn list(
    registry: &Registry,
    repository: &Reference,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, TransferError> {
    let mut url = registry.repository_url(repository, &format!("referrers/{digest}"))?;
    if let Some(wanted) = artifact_type {
        url.query_pairs_mut().append_pair("artifactType", wanted);
    }
    let scopes = [scope(repository, "pull")];
    let call = Call::new(Method::GET, url).header(ACCEPT, http::HeaderValue::from_static(media::INDEX));
    let answer = registry.send(&call, &scopes).await?;
    let mut found = Vec::new();
    // Whether the registry filters or not, it is done here.
    let mut keep = |page: Page| {
        let entries = page.manifests.unwrap_or_default().into_iter();
        let wanted = entries.filter(|entry| artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted)));
        found.extend(wanted.map(|entry| entry.descriptor));
        found.len() < MOST
    };
    match answer.status() {
        StatusCode::OK => lists::pages(registry, answer, &scopes, keep).await?,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            if let Some(bytes) = by_tag(registry, repository, digest).await? {
                let page = serde_json::from_slice(&bytes).map_err(|error| registry.malformed(format!("an index that is none: {error}")))?;
                keep(page);
            }
        }
        _ => return Err(answer.refusal().await),
    }
    found.truncate(MOST);
    Ok(found)
}

/// The index under the tag `sha256-HEX`.
async fn by_tag(registry: &Registry, repository: &Reference, digest: &Digest) -> Result<Option<Vec<u8>>, TransferError> {
    let tag: String = digest.as_str().replace(':', "-").chars().take(128).collect();
    let name = Reference::parse_normalized(&format!("{}:{tag}", repository.repository()));
    let name = name.map_err(|error| TransferError::Invalid(error.to_string()))?;
    match manifest::fetch(registry, &name).await {
        Ok(fetched) => Ok(Some(fetched.bytes)),
        Err(TransferError::ManifestUnknown { .. } | TransferError::RepositoryUnknown { .. }) => Ok(None),
        Err(TransferError::Refused(refusal)) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
