//! Blobs on their way in: in one request, in two, in pieces, or mounted from another repository.
//!
//! Bytes are hashed and written as they come, inline: a hand-over to another thread for each frame costs more than the work.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use sampan_oci::Digest;

use super::{Call, Reply, bare, blocking, query, value};
use crate::Registry;
use crate::auth::Access;
use crate::error::{Code, Outcome, Refusal};
use crate::range::piece;
use crate::route;
use crate::store::{Session, TakeError};

/// Small frames are gathered up to here.
const BATCH: usize = 1 << 20;
/// How long a client may send nothing.
const STALL: Duration = Duration::from_secs(60);

/// `POST /v2/NAME/blobs/uploads/`.
pub(super) async fn begin(call: Call, name: String) -> Outcome<Reply> {
    let mount = query(&call, "mount").next();
    let from = query(&call, "from").next();
    let digest = query(&call, "digest").next().map(|text| parse_digest(&text)).transpose()?;
    let algorithm = query(&call, "digest-algorithm").next();
    if algorithm.as_deref().is_some_and(|name| !matches!(name, "sha256" | "sha512")) {
        return Err(Refusal::new(Code::DigestInvalid).message("unsupported digest algorithm: sha256 and sha512 are offered"));
    }
    if let Some(text) = mount {
        let digest = parse_digest(&text)?;
        if mounted(&call, &name, &digest, from).await? {
            return Ok(created(&name, &digest));
        }
    }
    let is_512 = algorithm.as_deref() == Some("sha512") || digest.as_ref().is_some_and(|digest| digest.algorithm() == "sha512");
    let (registry, repo) = (Arc::clone(&call.registry), name.clone());
    let session = blocking(move || registry.store.uploads.begin(&repo, is_512)).await?.map_err(not_taken)?;
    let Some(digest) = digest else { return Ok(accepted(&name, &session)) };
    let registry = Arc::clone(&call.registry);
    let mut session = session;
    let received = receive(&registry, &mut session, call.body).await;
    match received {
        Ok(()) => complete(registry, name, session, digest).await,
        Err(refusal) => {
            session.end();
            Err(refusal)
        }
    }
}

/// Mounts a blob that the client may read elsewhere.
async fn mounted(call: &Call, name: &str, digest: &Digest, from: Option<String>) -> Outcome<bool> {
    if let Some(from) = &from
        && (!route::is_name(from) || !call.identity.may(Access::Pull, from))
    {
        return Ok(false);
    }
    // Without a source it may lie in a repository that the client cannot read; with a password shown all can be read.
    if from.is_none() && call.identity.scopes.is_some() {
        return Ok(false);
    }
    let (registry, repo, digest) = (Arc::clone(&call.registry), name.to_owned(), digest.clone());
    Ok(blocking(move || registry.store.mount(&repo, &digest, from.as_deref())).await??)
}

/// `PATCH`: a piece, or all that comes.
pub(super) async fn append(call: Call, name: String, id: String) -> Outcome<Reply> {
    let mut session = take(&call, &name, &id).await?;
    check_place(&call, &name, &session)?;
    receive(&call.registry, &mut session, call.body).await?;
    Ok(accepted(&name, &session))
}

/// `PUT`: the rest, and the digest of it all.
pub(super) async fn finish(call: Call, name: String, id: String) -> Outcome<Reply> {
    let digest = query(&call, "digest").next();
    let digest = digest.ok_or_else(|| Refusal::new(Code::DigestInvalid).message("the parameter digest is missing"))?;
    let digest = parse_digest(&digest)?;
    let mut session = take(&call, &name, &id).await?;
    check_place(&call, &name, &session)?;
    receive(&call.registry, &mut session, call.body).await?;
    complete(call.registry, name, session, digest).await
}

/// `GET`: how far it is.
pub(super) async fn status(call: Call, name: String, id: String) -> Outcome<Reply> {
    let session = take(&call, &name, &id).await?;
    let mut reply = accepted(&name, &session);
    *reply.status_mut() = StatusCode::NO_CONTENT;
    Ok(reply)
}

/// `DELETE`: gives it up.
pub(super) async fn cancel(call: Call, name: String, id: String) -> Outcome<Reply> {
    let session = take(&call, &name, &id).await?;
    blocking(move || session.end()).await?;
    Ok(bare(StatusCode::NO_CONTENT))
}

fn parse_digest(text: &str) -> Outcome<Digest> {
    route::digest(text).map_err(|_| Refusal::new(Code::DigestInvalid).message("invalid digest").detail(sampan_base::sanitize(text)))
}

fn not_taken(error: TakeError) -> Refusal {
    match error {
        TakeError::Unknown => Refusal::new(Code::BlobUploadUnknown),
        TakeError::Busy => {
            Refusal::new(Code::BlobUploadInvalid).status(StatusCode::CONFLICT).message("another request works on this upload")
        }
        TakeError::Full => Refusal::new(Code::TooManyRequests).message("too many uploads are under way").header(header::RETRY_AFTER, "60"),
        TakeError::Io(error) => Refusal::disk("begin or continue an upload", &error),
    }
}

async fn take(call: &Call, name: &str, id: &str) -> Outcome<Session> {
    let (registry, name, id) = (Arc::clone(&call.registry), name.to_owned(), id.to_owned());
    blocking(move || registry.store.uploads.take(&name, &id)).await?.map_err(not_taken)
}

/// A piece must begin where the last one ended.
fn check_place(call: &Call, name: &str, session: &Session) -> Outcome<()> {
    let Some(given) = call.head.headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let length = call.head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let fits = match given.to_str().ok().and_then(piece) {
        Some((first, count)) => first == session.size() && length.is_none_or(|length| length == count),
        None => return Err(Refusal::new(Code::BlobUploadInvalid).message("invalid Content-Range: FIRST-LAST is expected")),
    };
    if fits {
        return Ok(());
    }
    let refusal = Refusal::new(Code::RangeInvalid).header(header::RANGE, range(session.size()));
    Err(refusal.header(header::LOCATION, location(name, &session.id)))
}

/// Writes what the client sends. What came before a break stays: the client may go on.
async fn receive(registry: &Registry, session: &mut Session, mut body: Incoming) -> Outcome<()> {
    let too_large =
        || Refusal::new(Code::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE).message("the blob is larger than this registry takes");
    let failed = |error: &std::io::Error| Refusal::disk("write an upload", error);
    if let Some(announced) = body.size_hint().exact().filter(|count| *count > 0) {
        if session.size().saturating_add(announced) > registry.max_blob {
            return Err(too_large());
        }
        if announced > BATCH as u64 {
            session.reserve(announced).map_err(|error| failed(&error))?;
        }
    }
    let mut gathered: Vec<u8> = Vec::new();
    let ended = loop {
        let Ok(frame) = tokio::time::timeout(STALL, body.frame()).await else {
            break Err(Refusal::new(Code::BlobUploadInvalid).status(StatusCode::REQUEST_TIMEOUT).message("nothing came for a minute"));
        };
        let data = match frame {
            None => break Ok(()),
            Some(Err(error)) => break Err(Refusal::new(Code::BlobUploadInvalid).message(format!("the upload broke off: {error}"))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
        };
        registry.metrics.received.inc_by(data.len() as u64);
        if session.size().saturating_add((gathered.len() + data.len()) as u64) > registry.max_blob {
            break Err(too_large());
        }
        if gathered.is_empty() && data.len() >= BATCH / 4 {
            session.append(&data).map_err(|error| failed(&error))?;
            continue;
        }
        gathered.extend_from_slice(&data);
        if gathered.len() >= BATCH {
            session.append(&gathered).map_err(|error| failed(&error))?;
            gathered.clear();
        }
    };
    session.append(&gathered).map_err(|error| failed(&error))?;
    ended
}

/// Checks the bytes, makes them durable, and lets the repository have them.
async fn complete(registry: Arc<Registry>, name: String, mut session: Session, digest: Digest) -> Outcome<Reply> {
    blocking(move || {
        let failed = |error: std::io::Error| Refusal::disk("keep a blob", &error);
        if !session.verify(&digest).map_err(failed)? {
            session.end();
            return Err(Refusal::new(Code::DigestInvalid).detail(digest.to_string()));
        }
        let size = session.size();
        let file = session.sync().map_err(failed)?;
        registry.store.publish(&name, &digest, &file, size).map_err(failed)?;
        session.end();
        Ok(created(&name, &digest))
    })
    .await?
}

fn location(name: &str, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The bytes that are there, as clients expect it: `0-0` for none and for one.
fn range(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn accepted(name: &str, session: &Session) -> Reply {
    let mut reply = bare(StatusCode::ACCEPTED);
    let headers = reply.headers_mut();
    headers.insert(header::LOCATION, value(location(name, &session.id)));
    headers.insert(header::RANGE, value(range(session.size())));
    headers.insert("docker-upload-uuid", value(&session.id));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    reply
}

fn created(name: &str, digest: &Digest) -> Reply {
    let mut reply = bare(StatusCode::CREATED);
    let headers = reply.headers_mut();
    headers.insert(header::LOCATION, value(format!("/v2/{name}/blobs/{digest}")));
    headers.insert("docker-content-digest", value(digest.as_str()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    reply
}
