//! Blobs on their way out: whole or in part, from a mapping of the file, without copying.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use sampan_durable::Mapping;
use sampan_oci::Digest;

use super::{Body, Call, Reply, bare, blocking, full, value};
use crate::error::{Code, Outcome, Refusal};
use crate::range::{Wanted, wanted};
use crate::store::BlobFile;

/// Bytes of one frame.
const FRAME: usize = 1 << 20;
/// Blobs up to here are read, larger ones are mapped.
const SMALL: u64 = 64 << 10;

/// What is to be sent of a blob.
enum Content {
    None,
    Small(Bytes),
    Mapped(Mapping),
}

pub(super) async fn get(call: Call, name: String, digest: Digest) -> Outcome<Reply> {
    let is_head = call.head.method == Method::HEAD;
    let text = |name: header::HeaderName| call.head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (range, same) = (text(header::RANGE), text(header::IF_NONE_MATCH));
    let condition = text(header::IF_RANGE);
    let (registry, wanted_digest) = (Arc::clone(&call.registry), digest.clone());
    let etag = format!("\"{digest}\"");
    let is_known = same.is_some_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == etag));
    let opened = blocking(move || {
        let Some(file) = registry.store.blob(&name, &wanted_digest)? else {
            return Err(Refusal::new(Code::BlobUnknown).detail(wanted_digest.to_string()));
        };
        let content = if is_head || is_known { Content::None } else { open(&file)? };
        Ok((file.size, content))
    });
    let (size, content) = opened.await??;
    if is_known {
        let mut reply = bare(StatusCode::NOT_MODIFIED);
        reply.headers_mut().insert(header::ETAG, value(&etag));
        return Ok(reply);
    }
    let range = range.filter(|_| condition.is_none_or(|condition| condition == etag));
    let part = match wanted(range.as_deref(), size) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Nothing => {
            let refusal = Refusal::new(Code::RangeInvalid);
            return Err(refusal.header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let bytes = part.clone().unwrap_or(0..size);
    call.registry.metrics.sent.inc_by(if is_head { 0 } else { bytes.end - bytes.start });
    let mut reply = Response::new(body(content, &bytes));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=31536000"));
    headers.insert(header::ETAG, value(&etag));
    headers.insert("docker-content-digest", value(digest.as_str()));
    if let Some(part) = part {
        let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        headers.insert(header::CONTENT_RANGE, value(text));
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(reply)
}

/// Opens a blob's file; one whose length is not the row's would end a reader by a signal.
fn open(blob: &BlobFile) -> Outcome<Content> {
    let failed = |error: std::io::Error| Refusal::disk("read a blob", &error);
    if blob.size <= SMALL {
        let bytes = std::fs::read(&blob.path).map_err(failed)?;
        check_length(blob, bytes.len() as u64)?;
        return Ok(Content::Small(bytes.into()));
    }
    let file = File::open(&blob.path).map_err(failed)?;
    check_length(blob, file.metadata().map_err(failed)?.len())?;
    Mapping::new(&file).map(Content::Mapped).map_err(failed)
}

fn check_length(blob: &BlobFile, found: u64) -> Outcome<()> {
    if found == blob.size {
        return Ok(());
    }
    let path = blob.path.display();
    Err(Refusal::internal(
        "read a blob",
        &format!("{path} has {found} bytes, {} are expected: restore it from a backup, or push it again", blob.size),
    ))
}

fn body(content: Content, range: &Range<u64>) -> Body {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let range = place(range.start)..place(range.end);
    match content {
        Content::None => full(Bytes::new()),
        Content::Small(bytes) => full(bytes.slice(range.start.min(bytes.len())..range.end.min(bytes.len()))),
        Content::Mapped(mapping) => frames(mapping, range),
    }
}

/// The frames of a mapping. What is not in memory is waited for on a thread that may wait.
fn frames(mapping: Mapping, range: Range<usize>) -> Body {
    let frames = stream::try_unfold((mapping, range), async |(mapping, range)| {
        if range.is_empty() {
            return Ok(None);
        }
        let frame = range.start..range.end.min(range.start.saturating_add(FRAME));
        if !mapping.is_resident(&frame) {
            let (reader, wanted) = (mapping.clone(), frame.start..range.end.min(frame.start.saturating_add(8 * FRAME)));
            tokio::task::spawn_blocking(move || reader.populate(&wanted)).await.map_err(std::io::Error::other)??;
        }
        let bytes = mapping.part(frame.clone());
        Ok(Some((Frame::data(bytes), (mapping, frame.end..range.end))))
    });
    StreamBody::new(frames).boxed()
}

pub(super) async fn delete(call: Call, name: String, digest: Digest) -> Outcome<Reply> {
    let registry = Arc::clone(&call.registry);
    let text = digest.to_string();
    if blocking(move || registry.store.remove_blob(&name, &digest)).await?? {
        let mut reply = bare(StatusCode::ACCEPTED);
        reply.headers_mut().insert("docker-content-digest", value(text));
        return Ok(reply);
    }
    Err(Refusal::new(Code::BlobUnknown).detail(text))
}
