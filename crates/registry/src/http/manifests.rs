//! Manifests in and out.

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};

use super::blobs::matches_tag;
use super::{Answer, Call, answer, blocking, set, text};
use crate::error::{Code, RegistryError, Result};
use crate::manifest;
use crate::name::{Algorithm, Hasher, Reference, is_tag};
use crate::store::PutManifest;

/// Tags that one request may set.
const TAGS: usize = 100;

impl Call<'_> {
    /// `Accept` is not looked at: there is one form of a manifest, and clients that ask for less than they can read are many.
    pub(super) fn get_manifest(&self, repository: &str, reference: &Reference) -> Result<Answer> {
        let store = &self.registry.store;
        let cached = store.cache().get(repository, reference.as_str());
        let manifest = match cached {
            Some(manifest) => manifest,
            None => blocking(|| store.manifest(repository, reference))?,
        };
        let tag = format!("\"{}\"", manifest.digest);
        let mut answer = answer(StatusCode::OK);
        set(&mut answer, "docker-content-digest", &manifest.digest);
        set(&mut answer, "etag", &tag);
        if text(&self.headers, "if-none-match").is_some_and(|known| matches_tag(known, &tag)) {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        set(&mut answer, "content-type", &manifest.media_type);
        answer.headers_mut().insert("content-length", manifest.body.len().into());
        if self.method != Method::HEAD {
            *answer.body_mut() = manifest.body.clone().into();
        }
        Ok(answer)
    }

    pub(super) async fn put_manifest(&mut self, repository: &str, reference: &Reference) -> Result<Answer> {
        let Some(body) = self.whole_body(manifest::LIMIT).await? else { return Err(manifest::too_large()) };
        let facts = manifest::parse(text(&self.headers, "content-type"), &body)?;
        let (algorithm, mut tags) = match reference {
            Reference::Tag(tag) => (Algorithm::Sha256, vec![tag.as_str()]),
            Reference::Digest(digest) => (digest.algorithm(), Vec::new()),
        };
        let asked: Vec<&str> = self.query.all("tag").collect();
        if asked.len() > TAGS {
            return Err(RegistryError::say(Code::ManifestInvalid, "too many tags at once").status(414));
        }
        if let Some(bad) = asked.iter().find(|tag| !is_tag(tag)) {
            return Err(RegistryError::say(Code::ManifestInvalid, "invalid tag").detail(sampan_base::sanitize(bad)));
        }
        tags.extend(&asked);
        let digest = Hasher::of(algorithm, &body);
        if matches!(reference, Reference::Digest(promised) if *promised != digest) {
            return Err(RegistryError::new(Code::DigestInvalid).detail(reference.as_str()));
        }
        let by = self.identity.user.as_deref().unwrap_or_default();
        let may_lack = self.registry.config.allow_missing_blobs;
        let put = PutManifest { repository, digest: &digest, body: &body, facts: &facts, tags: &tags, by, may_lack };
        blocking(|| self.registry.store.put_manifest(&put))?;
        let mut answer = answer(StatusCode::CREATED);
        set(&mut answer, "location", &format!("/v2/{repository}/manifests/{digest}"));
        set(&mut answer, "docker-content-digest", digest.as_str());
        if let Some(subject) = &facts.subject {
            set(&mut answer, "oci-subject", subject.as_str());
        }
        for tag in &asked {
            if let Ok(value) = HeaderValue::from_str(tag) {
                answer.headers_mut().append("oci-tag", value);
            }
        }
        Ok(answer)
    }
}
