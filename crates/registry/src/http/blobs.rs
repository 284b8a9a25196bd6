//! Blobs out.

use std::io::Read as _;

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::body::{Body, FilePart};
use super::{Answer, Call, answer, blocking, set, text};
use crate::error::{Code, RegistryError, Result};
use crate::name::Digest;
use crate::range::{Wanted, parse_range};
use crate::store::Blob;

/// Up to here bytes are read, above they are mapped.
const SMALL: u64 = 64 << 10;

impl Call<'_> {
    pub(super) fn get_blob(&self, repository: &str, digest: &Digest) -> Result<Answer> {
        let store = &self.registry.store;
        let is_head = self.method == Method::HEAD;
        // Who asks with HEAD is about to build on the answer.
        let blob = blocking(|| if is_head { store.blob_with_lease(repository, digest) } else { store.blob(repository, digest) })?;
        let tag = format!("\"{digest}\"");
        let mut answer = answer(StatusCode::OK);
        set(&mut answer, "docker-content-digest", digest.as_str());
        set(&mut answer, "etag", &tag);
        set(&mut answer, "accept-ranges", "bytes");
        set(&mut answer, "cache-control", "max-age=31536000");
        if text(&self.headers, "if-none-match").is_some_and(|known| matches_tag(known, &tag)) {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        set(&mut answer, "content-type", "application/octet-stream");
        // A range is of the content that the client knows, or there is none.
        let range = text(&self.headers, "range").filter(|_| text(&self.headers, "if-range").is_none_or(|known| known.trim() == tag));
        let part = match range.map_or(Wanted::All, |range| parse_range(range, blob.size)) {
            Wanted::All => 0..blob.size,
            Wanted::Part(part) => {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(&mut answer, "content-range", &format!("bytes {}-{}/{}", part.start, part.end - 1, blob.size));
                part
            }
            Wanted::Unsatisfiable => {
                let mut refusal = super::json(RegistryError::say(Code::RangeInvalid, "the range lies behind the blob's end").body());
                *refusal.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                set(&mut refusal, "content-range", &format!("bytes */{}", blob.size));
                return Ok(refusal);
            }
        };
        set(&mut answer, "content-length", &(part.end - part.start).to_string());
        if !is_head {
            *answer.body_mut() = blocking(|| self.blob_body(&blob, part))?;
        }
        Ok(answer)
    }

    fn blob_body(&self, blob: &Blob, part: std::ops::Range<u64>) -> Result<Body> {
        if part.is_empty() {
            return Ok(Body::empty());
        }
        let mut file = self.registry.store.open_blob(blob)?;
        // Rows and files agree unless the disk lost something: then nothing must be sent.
        if file.metadata()?.len() != blob.size {
            return Err(std::io::Error::other("the file of a blob has another length than its row").into());
        }
        let (start, end) = (at(part.start)?, at(part.end)?);
        if blob.size <= SMALL {
            let mut bytes = Vec::with_capacity(at(blob.size)?);
            file.read_to_end(&mut bytes)?;
            return Ok(Bytes::from(bytes).slice(start..end).into());
        }
        Ok(Body::Part(FilePart::new(file, start..end, self.peer.window.clone())?))
    }
}

fn at(offset: u64) -> Result<usize> {
    usize::try_from(offset).map_err(|error| std::io::Error::other(error).into())
}

/// Whether a list of tags has one, or is `*`.
pub(super) fn matches_tag(list: &str, tag: &str) -> bool {
    list.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == tag || known == "*")
}
