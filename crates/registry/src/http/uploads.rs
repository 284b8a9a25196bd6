//! Blobs in: whole, in chunks, and from other repositories.

use bytes::Bytes;
use hyper::StatusCode;

use super::{Answer, Call, answer, blocking, set, text};
use crate::error::{Code, RegistryError, Result};
use crate::name::{Algorithm, Digest, is_repository};
use crate::range::parse_content_range;
use crate::rights::Action;
use crate::store::{STRANGER, Upload, Writing};

/// Bytes that are hashed and written at once.
const BATCH: usize = 1 << 20;

fn bad_digest() -> RegistryError {
    RegistryError::say(Code::DigestInvalid, "invalid digest")
}

impl Call<'_> {
    pub(super) async fn start_upload(&mut self, repository: &str) -> Result<Answer> {
        let store = &self.registry.store;
        if let Some(mount) = self.query.get("mount") {
            let digest = Digest::parse(mount).ok_or_else(bad_digest)?;
            let from = self.query.get("from").filter(|from| !from.is_empty());
            if from.is_some_and(|from| !is_repository(from)) {
                return Err(RegistryError::new(Code::NameInvalid));
            }
            let identity = &self.identity;
            if blocking(|| store.mount(repository, &digest, from, |source| identity.may(Action::Pull, source)))? {
                return Ok(created(repository, &digest));
            }
        } else if let Some(digest) = self.query.get("digest") {
            let digest = Digest::parse(digest).ok_or_else(bad_digest)?;
            let writing = blocking(|| store.start_whole(digest.algorithm()))?;
            let writing = self.receive(writing).await?;
            blocking(|| self.registry.store.finish_upload(repository, writing, &digest))?;
            return Ok(created(repository, &digest));
        }
        let algorithm = match self.query.get("digest-algorithm") {
            None => Algorithm::Sha256,
            Some(name) => Algorithm::parse(name).ok_or_else(|| RegistryError::say(Code::DigestInvalid, "unsupported digest algorithm"))?,
        };
        let upload = blocking(|| store.start_upload(repository, algorithm, &self.owner()))?;
        Ok(progress(StatusCode::ACCEPTED, repository, &upload))
    }

    /// Whose uploads this client's are.
    fn owner(&self) -> String {
        self.identity.user.clone().unwrap_or_else(|| format!("{STRANGER}{}", self.peer.address.to_canonical()))
    }

    pub(super) fn upload_status(&self, repository: &str, id: &str) -> Result<Answer> {
        let upload = blocking(|| self.registry.store.upload(repository, id, &self.owner()))?;
        Ok(progress(StatusCode::NO_CONTENT, repository, &upload))
    }

    pub(super) async fn continue_upload(&mut self, repository: &str, id: &str) -> Result<Answer> {
        let writing = blocking(|| self.registry.store.write_upload(repository, id, &self.owner()))?;
        match self.receive_chunk(writing).await? {
            Ok(writing) => Ok(progress(StatusCode::ACCEPTED, repository, &state(&writing))),
            Err((error, upload)) => Ok(self.out_of_order(&error, repository, &upload)),
        }
    }

    pub(super) async fn finish_upload(&mut self, repository: &str, id: &str) -> Result<Answer> {
        let digest = self.query.get("digest").and_then(Digest::parse).ok_or_else(bad_digest)?;
        let writing = blocking(|| self.registry.store.write_upload(repository, id, &self.owner()))?;
        match self.receive_chunk(writing).await? {
            Ok(writing) => {
                blocking(|| self.registry.store.finish_upload(repository, writing, &digest))?;
                Ok(created(repository, &digest))
            }
            Err((error, upload)) => Ok(self.out_of_order(&error, repository, &upload)),
        }
    }

    pub(super) fn cancel_upload(&self, repository: &str, id: &str) -> Result<Answer> {
        blocking(|| {
            let writing = self.registry.store.write_upload(repository, id, &self.owner())?;
            self.registry.store.cancel_upload(writing)
        })?;
        Ok(answer(StatusCode::NO_CONTENT))
    }

    /// Says that a chunk does not fit, and where the upload is.
    fn out_of_order(&self, error: &RegistryError, repository: &str, upload: &Upload) -> Answer {
        let mut refusal = self.refusal(error, &self.path);
        let there = progress(StatusCode::OK, repository, upload);
        for name in ["location", "range", "docker-upload-uuid"] {
            if let Some(value) = text(there.headers(), name) {
                set(&mut refusal, name, value);
            }
        }
        refusal
    }

    /// Takes a body that may say where it belongs. The inner failure is one of order, and leaves the upload as it was.
    async fn receive_chunk(&mut self, writing: Writing) -> Result<Result<Writing, (RegistryError, Upload)>> {
        let Some(header) = self.headers.get("content-range") else { return self.receive(writing).await.map(Ok) };
        let range = header.to_str().ok().and_then(parse_content_range);
        let Some(range) = range.filter(|range| range.start == writing.offset()) else {
            return Ok(Err((RegistryError::new(Code::RangeInvalid), state(&writing))));
        };
        let length = range.end - range.start;
        let wrong = || RegistryError::say(Code::SizeInvalid, "the body is not as long as its Content-Range says");
        let announced = text(&self.headers, "content-length").and_then(|text| text.parse::<u64>().ok());
        if announced.is_some_and(|announced| announced != length) {
            return Ok(Err((wrong(), state(&writing))));
        }
        let before = writing.checkpoint();
        let mut writing = self.receive(writing).await?;
        if writing.offset() == range.end {
            return Ok(Ok(writing));
        }
        blocking(|| writing.restore(before))?;
        Ok(Err((wrong(), state(&writing))))
    }

    /// Takes a body. What came before it broke off stays in the upload.
    async fn receive(&mut self, mut writing: Writing) -> Result<Writing> {
        use hyper::body::Body as _;
        let limit = self.registry.config.limits.blob;
        let too_large = || RegistryError::say(Code::SizeInvalid, format!("a blob may have {limit} bytes here")).status(413);
        if writing.offset().saturating_add(self.body.size_hint().lower()) > limit {
            return Err(too_large());
        }
        let mut frames: Vec<Bytes> = Vec::new();
        let mut waiting = 0;
        loop {
            let next = self.next_bytes().await;
            if let Ok(Some(bytes)) = &next {
                waiting += bytes.len();
                frames.push(bytes.clone());
            }
            if writing.offset().saturating_add(waiting as u64) > limit {
                return Err(too_large());
            }
            let more = matches!(next, Ok(Some(_)));
            if waiting >= BATCH || !more && waiting > 0 {
                blocking(|| writing.append(&frames))?;
                frames.clear();
                waiting = 0;
            }
            if !more {
                return next.map(|_| writing);
            }
        }
    }
}

fn state(writing: &Writing) -> Upload {
    Upload { id: writing.id().to_owned(), offset: writing.offset() }
}

fn created(repository: &str, digest: &Digest) -> Answer {
    let mut answer = answer(StatusCode::CREATED);
    set(&mut answer, "location", &format!("/v2/{repository}/blobs/{digest}"));
    set(&mut answer, "docker-content-digest", digest.as_str());
    answer
}

fn progress(status: StatusCode, repository: &str, upload: &Upload) -> Answer {
    let mut answer = answer(status);
    set(&mut answer, "location", &format!("/v2/{repository}/blobs/uploads/{}", upload.id));
    set(&mut answer, "range", &format!("0-{}", upload.offset.saturating_sub(1)));
    set(&mut answer, "docker-upload-uuid", &upload.id);
    answer
}
