//! Manifests and indexes: fetched, asked about, sent, deleted. Their content is not looked into, but for a missing media type.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use sampan_oci::{Descriptor, Digest, Reference, media};
use serde::Deserialize;

use crate::exchange::{Answer, Call};
use crate::registry::{Registry, scope};
use crate::types::FetchedManifest;
use crate::{TransferError, blob, refusal};

/// The largest manifest that is read or sent.
pub(crate) const LIMIT: u64 = 4 << 20;

/// Which types are understood; anything is accepted last, as artifacts have types of their own.
const ACCEPTED: &[&str] = &[media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST, "*/*;q=0.1"];

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(rename = "schemaVersion", default)]
    schema_version: u64,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

/// The last part of a manifest's address: the digest, or the tag.
fn selector(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => "latest".to_owned(),
    }
}

fn call(registry: &Registry, method: Method, reference: &Reference) -> Result<Call, TransferError> {
    let url = registry.repository_url(reference, &format!("manifests/{}", selector(reference)))?;
    let mut call = Call::new(method, url);
    for accepted in ACCEPTED {
        call = call.header(ACCEPT, HeaderValue::from_static(accepted));
    }
    // Docker asks for tags by HEAD first, and its errors say so.
    if call.method == Method::GET && reference.digest().is_none() {
        call.label = "Head";
    }
    Ok(call)
}

/// Fetches a manifest.
pub(crate) async fn fetch(registry: &Registry, reference: &Reference) -> Result<FetchedManifest, TransferError> {
    let call = call(registry, Method::GET, reference)?;
    let answer = registry.send(&call, &[scope(reference, "pull")]).await?;
    match answer.status() {
        StatusCode::OK => receive(answer, reference).await,
        _ => Err(refusal::of_pull(answer.refusal().await, reference)),
    }
}

async fn receive(answer: Answer, reference: &Reference) -> Result<FetchedManifest, TransferError> {
    let declared = media_type(&answer);
    let host = answer.url.host_str().unwrap_or_default().to_owned();
    let bytes = answer.read("manifest", LIMIT).await?;
    let digest = match reference.digest() {
        None => Digest::sha256_of(&bytes),
        Some(digest) => {
            blob::verify(digest, &bytes)?;
            digest.clone()
        }
    };
    let media_type = match declared {
        Some(declared) => declared,
        None => inner_type(&bytes).ok_or_else(|| TransferError::Malformed { host, problem: "a manifest without a type".to_owned() })?,
    };
    Ok(FetchedManifest { media_type, bytes, digest })
}

/// The type in the headers, unless it is one of those that servers give to anything.
fn media_type(answer: &Answer) -> Option<String> {
    let text = answer.header(&CONTENT_TYPE)?.split(';').next()?.trim().to_ascii_lowercase();
    let vague = text.is_empty() || matches!(text.as_str(), "application/json" | "text/plain" | "application/octet-stream" | "text/html");
    (!vague && text.len() <= 255).then_some(text)
}

/// The type that the document gives itself, or that its form shows.
fn inner_type(bytes: &[u8]) -> Option<String> {
    let typed: Typed = serde_json::from_slice(bytes).ok()?;
    if !typed.media_type.is_empty() {
        return (typed.media_type.len() <= 255).then_some(typed.media_type);
    }
    match (typed.schema_version, typed.manifests) {
        (2, Some(_)) => Some(media::INDEX.to_owned()),
        (2, None) => Some(media::MANIFEST.to_owned()),
        (1, _) => Some("application/vnd.docker.distribution.manifest.v1+json".to_owned()),
        _ => None,
    }
}

/// Asks for type, size and digest of a manifest. Where HEAD is not offered or says too little, the manifest is fetched.
pub(crate) async fn head(registry: &Registry, reference: &Reference) -> Result<Option<Descriptor>, TransferError> {
    let call = call(registry, Method::HEAD, reference)?;
    let answer = registry.send(&call, &[scope(reference, "pull")]).await?;
    match answer.status() {
        StatusCode::NOT_FOUND => return Ok(None),
        StatusCode::OK => {
            if let Some(found) = described(&answer, reference) {
                return Ok(Some(found));
            }
        }
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {}
        // The answer to HEAD has no body that would say why; only GET tells.
        status if status.is_client_error() => {}
        _ => return Err(answer.refusal().await),
    }
    match fetch(registry, reference).await {
        Ok(manifest) => Ok(Some(manifest.descriptor())),
        Err(TransferError::ManifestUnknown { .. } | TransferError::RepositoryUnknown { .. }) => Ok(None),
        Err(TransferError::Refused(refusal)) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn described(answer: &Answer, reference: &Reference) -> Option<Descriptor> {
    let size = answer.header(&CONTENT_LENGTH)?.parse().ok()?;
    let digest: Digest = answer.named("docker-content-digest")?.parse().ok()?;
    let digest = match reference.digest() {
        Some(wanted) if *wanted == digest => digest,
        Some(_) => return None,
        None => digest,
    };
    let annotations = std::collections::BTreeMap::new();
    Some(Descriptor { media_type: media_type(answer)?, digest, size, annotations, platform: None })
}

/// Sends a manifest; says which digest it has.
pub(crate) async fn put(registry: &Registry, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest, TransferError> {
    if bytes.len() as u64 > LIMIT {
        return Err(TransferError::TooLarge { what: "manifest", limit: LIMIT });
    }
    let own = match reference.digest() {
        None => Digest::sha256_of(bytes),
        Some(digest) => {
            blob::verify(digest, bytes)?;
            digest.clone()
        }
    };
    let url = registry.repository_url(reference, &format!("manifests/{}", selector(reference)))?;
    let media_type = HeaderValue::from_str(media_type).map_err(|_| TransferError::Invalid(format!("media type {media_type:?}")))?;
    let mut call = Call::new(Method::PUT, url).header(CONTENT_TYPE, media_type);
    call.body = Bytes::copy_from_slice(bytes);
    let answer = registry.demand(&call, &[scope(reference, "pull,push")]).await.map_err(TransferError::bare)?;
    let said = answer.named("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
    match said {
        // A registry that changed the bytes would give out another image under our name.
        Some(said) if said.algorithm() == own.algorithm() && said != own => {
            Err(TransferError::WrongDigest { digest: own, received: said.to_string() })
        }
        _ => Ok(own),
    }
}

/// Deletes a manifest or a tag.
pub(crate) async fn delete(registry: &Registry, reference: &Reference) -> Result<(), TransferError> {
    let url = registry.repository_url(reference, &format!("manifests/{}", selector(reference)))?;
    let scopes = [scope(reference, "delete,pull")];
    let answer = registry.demand(&Call::new(Method::DELETE, url), &scopes).await.map_err(TransferError::bare)?;
    answer.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_inside() {
        for (bytes, wanted) in [
            (r#"{"schemaVersion":2,"mediaType":"a/b"}"#, Some("a/b")),
            (r#"{"schemaVersion":2,"manifests":[]}"#, Some(media::INDEX)),
            (r#"{"schemaVersion":2,"layers":[]}"#, Some(media::MANIFEST)),
            (r#"{"schemaVersion":1}"#, Some("application/vnd.docker.distribution.manifest.v1+json")),
            ("<html>", None),
            ("[]", None),
        ] {
            assert_eq!(inner_type(bytes.as_bytes()).as_deref(), wanted, "{bytes}");
        }
    }
}
