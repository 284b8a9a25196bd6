//! Manifests, tags, the list of repositories, referrers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use sampan_oci::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::{Call, Reply, bare, blocking, document, full, query, value};
use crate::cache::Ready;
use crate::document as manifest;
use crate::error::{Code, Outcome, Refusal};
use crate::route::{self, Target};
use crate::store::{NewManifest, PutError, Referrer};

/// Largest manifest.
const MAX_MANIFEST: usize = 4 << 20;
/// Entries of a page, if the client does not say.
const PAGE: i64 = 1000;
/// Entries of a page at most.
const MAX_PAGE: i64 = 10_000;
/// Tags that one push may set.
const MAX_TAGS: usize = 100;

pub(super) async fn get(call: &Call, name: &str, target: &Target) -> Outcome<Reply> {
    let registry = &call.registry;
    let ready = match registry.cache.get(name, target) {
        Some(ready) => ready,
        None => load(call, name, target).await?,
    };
    let same =
        call.head.headers.get(header::IF_NONE_MATCH).is_some_and(|given| {
            given.to_str().is_ok_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == ready.etag))
        });
    let is_head = call.head.method == Method::HEAD;
    let mut reply =
        if same { bare(StatusCode::NOT_MODIFIED) } else { Response::new(full(if is_head { Bytes::new() } else { ready.body.clone() })) };
    let headers = reply.headers_mut();
    headers.insert("docker-content-digest", ready.digest_header.clone());
    headers.insert(header::ETAG, ready.etag.clone());
    if !same {
        headers.insert(header::CONTENT_TYPE, ready.media_type.clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(ready.body.len()));
        registry.metrics.sent.inc_by(if is_head { 0 } else { ready.body.len() as u64 });
    }
    Ok(reply)
}

async fn load(call: &Call, name: &str, target: &Target) -> Outcome<Arc<Ready>> {
    let (registry, repo, wanted) = (Arc::clone(&call.registry), name.to_owned(), target.clone());
    let epoch = registry.cache.epoch();
    let row = blocking(move || registry.store.manifest(&repo, &wanted)).await??;
    let row = row.ok_or_else(|| unknown(name, target))?;
    call.registry.cache.keep(name, target, row, epoch).ok_or_else(|| Refusal::internal("send a manifest", &"its type is no header's value"))
}

fn unknown(name: &str, target: &Target) -> Refusal {
    let detail = match target {
        Target::Tag(tag) => format!("unknown tag={tag} in {name}"),
        Target::Digest(digest) => format!("unknown manifest name={name} revision={digest}"),
    };
    Refusal::new(Code::ManifestUnknown).detail(detail)
}

pub(super) async fn put(call: Call, name: String, target: Target) -> Outcome<Reply> {
    let content_type = call.head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let tags = tags_of(&call, &target)?;
    let digest_wanted = match &target {
        Target::Digest(digest) => Some(digest.clone()),
        Target::Tag(_) => {
            query(&call, "digest").next().map(|text| route::digest(&text)).transpose().map_err(|_| Refusal::new(Code::DigestInvalid))?
        }
    };
    let registry = Arc::clone(&call.registry);
    let body = read(call).await?;
    registry.metrics.received.inc_by(body.len() as u64);
    let digest = match &digest_wanted {
        Some(digest) => digest.clone(),
        None => Digest::sha256_of(&body),
    };
    if !is_digest_of(&digest, &body) {
        return Err(Refusal::new(Code::DigestInvalid).detail(format!("the manifest is not {digest}")));
    }
    let parsed = manifest::parse(content_type.as_deref(), &body).map_err(|error| Refusal::new(Code::ManifestInvalid).detail(error))?;
    let (store, repo, kept, stored, named) = (Arc::clone(&registry), name.clone(), parsed.clone(), digest.clone(), tags.clone());
    let added = blocking(move || {
        store.store.put_manifest(
            &repo,
            &NewManifest {
                digest: &stored,
                media_type: &kept.media_type,
                artifact_type: &kept.artifact_type,
                subject: kept.subject.as_deref(),
                annotations: kept.annotations.as_deref(),
                blobs: &kept.blobs,
                body: &body,
                tags: &named,
            },
        )
    });
    let added = added.await?;
    registry.cache.forget(&name);
    match added {
        Ok(()) => Ok(stored_reply(&name, &target, &digest, &parsed, &tags)),
        Err(PutError::Missing(blob)) => Err(Refusal::new(Code::ManifestBlobUnknown).detail(blob)),
        Err(PutError::Db(error)) => Err(error.into()),
    }
}

/// The tags that a push sets: the one of its path, or those of its query.
fn tags_of(call: &Call, target: &Target) -> Outcome<Vec<String>> {
    let mut tags: Vec<String> = query(call, "tag").take(MAX_TAGS + 1).collect();
    if tags.len() > MAX_TAGS {
        return Err(Refusal::new(Code::TagInvalid)
            .message(format!("at most {MAX_TAGS} tags can be set at a time"))
            .status(StatusCode::URI_TOO_LONG));
    }
    if let Some(bad) = tags.iter().find(|tag| !route::is_tag(tag)) {
        return Err(Refusal::new(Code::ManifestInvalid).message("invalid tag").detail(sampan_base::sanitize(bad)));
    }
    if let Target::Tag(tag) = target {
        tags.push(tag.clone());
    }
    Ok(tags)
}

fn stored_reply(name: &str, target: &Target, digest: &Digest, parsed: &manifest::Document, tags: &[String]) -> Reply {
    let mut reply = bare(StatusCode::CREATED);
    let headers = reply.headers_mut();
    headers.insert(header::LOCATION, value(format!("/v2/{name}/manifests/{digest}")));
    headers.insert("docker-content-digest", value(digest.as_str()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    if let Some(subject) = &parsed.subject {
        headers.insert("oci-subject", value(subject));
    }
    if matches!(target, Target::Digest(_)) {
        for tag in tags {
            headers.append("oci-tag", value(tag));
        }
    }
    reply
}

async fn read(call: Call) -> Outcome<Bytes> {
    match Limited::new(call.body, MAX_MANIFEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::ManifestInvalid).status(StatusCode::PAYLOAD_TOO_LARGE).message("the manifest is larger than 4 MiB"))
        }
        Err(error) => Err(Refusal::new(Code::ManifestInvalid).message(format!("the manifest broke off: {error}"))),
    }
}

fn is_digest_of(digest: &Digest, bytes: &[u8]) -> bool {
    match digest.algorithm() {
        "sha512" => digest.hex() == hex::encode(Sha512::digest(bytes)),
        _ => *digest == Digest::sha256_of(bytes),
    }
}

pub(super) async fn delete(call: Call, name: String, target: Target) -> Outcome<Reply> {
    let (registry, repo, wanted) = (Arc::clone(&call.registry), name.clone(), target.clone());
    let removed = blocking(move || registry.store.remove_manifest(&repo, &wanted)).await??;
    call.registry.cache.forget(&name);
    if removed { Ok(bare(StatusCode::ACCEPTED)) } else { Err(unknown(&name, &target)) }
}

/// How many entries the client wants.
fn page(call: &Call) -> Outcome<i64> {
    match query(call, "n").next() {
        None => Ok(PAGE),
        Some(text) => match text.parse::<i64>() {
            Ok(count @ 0..) => Ok(count.min(MAX_PAGE)),
            _ => Err(Refusal::new(Code::PaginationInvalid).detail(sampan_base::sanitize(&text))),
        },
    }
}

/// Adds the `Link` to the next page.
fn link(reply: &mut Reply, path: &str, count: i64, last: Option<&str>) {
    if let Some(last) = last {
        reply.headers_mut().insert(header::LINK, value(format!("<{path}?last={last}&n={count}>; rel=\"next\"")));
    }
}

pub(super) async fn tags(call: Call, name: String) -> Outcome<Reply> {
    let (count, last) = (page(&call)?, query(&call, "last").next().unwrap_or_default());
    let (registry, repo) = (Arc::clone(&call.registry), name.clone());
    let found = blocking(move || registry.store.tags(&repo, &last, count + 1)).await??;
    let mut tags = found.ok_or_else(|| Refusal::new(Code::NameUnknown).detail(name.clone()))?;
    let is_more = tags.len() > usize::try_from(count).unwrap_or(usize::MAX);
    tags.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let mut reply = document(json!({ "name": name, "tags": tags }).to_string());
    link(&mut reply, &format!("/v2/{name}/tags/list"), count, tags.last().filter(|_| is_more).map(String::as_str));
    Ok(reply)
}

pub(super) async fn catalog(call: Call) -> Outcome<Reply> {
    let (count, last) = (page(&call)?, query(&call, "last").next().unwrap_or_default());
    let registry = Arc::clone(&call.registry);
    let mut names = blocking(move || registry.store.repositories(&last, count + 1)).await??;
    let is_more = names.len() > usize::try_from(count).unwrap_or(usize::MAX);
    names.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let mut reply = document(json!({ "repositories": names }).to_string());
    link(&mut reply, "/v2/_catalog", count, names.last().filter(|_| is_more).map(String::as_str));
    Ok(reply)
}

pub(super) async fn referrers(call: Call, name: String, digest: Digest) -> Outcome<Reply> {
    let kind = query(&call, "artifactType").next().filter(|text| !text.is_empty());
    let after = query(&call, "last").next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let count = page(&call)?.max(1);
    let (registry, repo, wanted, subject) = (Arc::clone(&call.registry), name.clone(), kind.clone(), digest.clone());
    let found = blocking(move || registry.store.referrers(&repo, subject.as_str(), wanted.as_deref(), after, count + 1)).await??;
    let (manifests, last) = cut(found, usize::try_from(count).unwrap_or(usize::MAX));
    let index = json!({ "schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": manifests });
    let mut reply = document(index.to_string());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(manifest::INDEX));
    if kind.is_some() {
        reply.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = last {
        let filter = kind.map(|kind| format!("&artifactType={}", escape(&kind))).unwrap_or_default();
        let text = format!("</v2/{name}/referrers/{digest}?last={last}&n={count}{filter}>; rel=\"next\"");
        reply.headers_mut().insert(header::LINK, value(text));
    }
    Ok(reply)
}

/// As many referrers as a page holds, by number and by bytes, and the row of the last one if there are more.
fn cut(found: Vec<(i64, Referrer)>, count: usize) -> (Vec<Value>, Option<i64>) {
    let (mut manifests, mut bytes, mut last) = (Vec::new(), 0, 0);
    let total = found.len();
    for (row, referrer) in found {
        let described = describe(&referrer);
        bytes += described.to_string().len();
        if manifests.len() == count || (bytes > MAX_MANIFEST / 2 && !manifests.is_empty()) {
            break;
        }
        manifests.push(described);
        last = row;
    }
    let is_more = manifests.len() < total;
    (manifests, is_more.then_some(last))
}

fn describe(referrer: &Referrer) -> Value {
    let mut described = json!({ "mediaType": referrer.media_type, "digest": referrer.digest, "size": referrer.size });
    if !referrer.artifact_type.is_empty() {
        described["artifactType"] = json!(referrer.artifact_type);
    }
    if let Some(annotations) = referrer.annotations.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        described["annotations"] = annotations;
    }
    described
}

/// Percent-encodes what has a meaning in a query.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
