//! Blobs to a registry: asked about, mounted from another repository, sent in one piece, or where that is refused in several.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Url;
use sampan_oci::{Digest, Reference};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::TransferError;
use crate::exchange::{self, Answer, Call, Failed, REDIRECTS};
use crate::registry::{Registry, scope};
use crate::state::lock;

/// How much is read from the source at once.
const PIECE: usize = 128 << 10;
/// How many pieces wait to be sent.
const AHEAD: usize = 8;
/// Pieces of an upload in several requests: the first choice, the smallest, the largest that a registry may ask for.
const CHUNK: u64 = 16 << 20;
const SMALLEST: u64 = 256 << 10;
const LARGEST: u64 = 128 << 20;
/// A registry may think for so many stall times when it has everything.
const PATIENCE: u32 = 10;

/// What is sent.
pub(crate) struct Content<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    pub(crate) open: &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    pub(crate) progress: &'a (dyn Fn(u64) + Sync),
}

/// Asks for the length of a blob.
pub(crate) async fn has(registry: &Registry, repository: &Reference, digest: &Digest) -> Result<Option<u64>, TransferError> {
    let url = registry.repository_url(repository, &format!("blobs/{digest}"))?;
    let scopes = [scope(repository, "pull")];
    let call = Call { lenient: true, ..Call::new(Method::HEAD, url) };
    let mut answer = registry.send(&call, &scopes).await.map_err(TransferError::bare)?;
    if matches!(answer.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
        let call = Call { method: Method::GET, label: "Get", ..call };
        answer = registry.send(&call, &scopes).await.map_err(TransferError::bare)?;
    }
    match answer.status() {
        StatusCode::OK => {
            let length = answer.header(&CONTENT_LENGTH).and_then(|length| length.trim().parse().ok());
            length.map(Some).ok_or_else(|| registry.malformed(format!("{digest} has no length")))
        }
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(answer.refusal().await),
    }
}

/// Asks the registry to take a blob over from another of its repositories.
pub(crate) async fn mount(registry: &Registry, to: &Reference, digest: &Digest, from: &Reference) -> Result<bool, TransferError> {
    let mut url = registry.repository_url(to, "blobs/uploads/")?;
    url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from.path());
    let scopes = [scope(to, "pull,push"), scope(from, "pull")];
    let answer = registry.send(&Call::new(Method::POST, url), &scopes).await.map_err(TransferError::bare)?;
    match answer.status() {
        StatusCode::CREATED => Ok(true),
        StatusCode::ACCEPTED => {
            if let Some(Ok(session)) = answer.location() {
                give_up(registry, to, session).await;
            }
            Ok(false)
        }
        // It does not mount, or not from there; an upload will tell whether it takes the blob at all.
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
        _ => Err(answer.refusal().await),
    }
}

/// Ends an upload that will not be finished; what the registry says to that does not matter.
async fn give_up(registry: &Registry, repository: &Reference, session: Url) {
    if session.origin() != registry.endpoint.base.origin() {
        return;
    }
    let call = Call::new(Method::DELETE, session);
    let scopes = [scope(repository, "pull,push")];
    let Ok(proof) = registry.proof(&call, &scopes).await else { return };
    let timing = &registry.state.config.timing;
    let body = reqwest::Body::default();
    let _answer = exchange::once(&registry.http, &call, &call.url, proof.as_ref(), body, Some(timing.connect), timing).await;
}

/// How one try of an upload ended without success.
enum Ended {
    /// For good.
    Failed(TransferError),
    /// Another try may help, after this pause at least.
    Broken(TransferError, Option<Duration>),
    /// A proof was refused and is renewed.
    Renewed,
    /// The body was too large or its form not wanted.
    TooLarge(TransferError),
}

impl From<TransferError> for Ended {
    fn from(error: TransferError) -> Self {
        Self::Failed(error.bare())
    }
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        // A registry that closes the connection in the middle of a body may do so for any reason.
        match failed.error {
            error @ TransferError::Transport { .. } => Self::Broken(error, None),
            error => Self::Failed(error.bare()),
        }
    }
}

/// Sends a blob.
pub(crate) async fn put(registry: &Registry, repository: &Reference, content: &Content<'_>) -> Result<(), TransferError> {
    let timing = &registry.state.config.timing;
    let (mut tries, mut renewed, mut chunk) = (0, false, None);
    loop {
        let ended = match attempt(registry, repository, content, chunk).await {
            Ok(()) => return Ok(()),
            Err(ended) => ended,
        };
        match ended {
            Ended::Failed(error) => return Err(error),
            Ended::Renewed if renewed => {
                return Err(TransferError::Refused(crate::Refusal {
                    status: 401,
                    code: "UNAUTHORIZED".to_owned(),
                    message: "authentication required".to_owned(),
                }));
            }
            Ended::Renewed => renewed = true,
            Ended::TooLarge(error) => {
                chunk = match chunk {
                    None => Some(CHUNK),
                    Some(size) if size / 4 >= SMALLEST => Some(size / 4),
                    Some(_) => return Err(error),
                };
            }
            Ended::Broken(error, asked) => {
                tries += 1;
                let Some(pause) = exchange::pause(timing, tries, None) else { return Err(error) };
                let pause = pause.max(asked.unwrap_or_default()).min(timing.longest_pause);
                tracing::debug!(digest = %content.digest, problem = %error, "an upload begins anew");
                registry.waiting.rest(pause).await;
            }
        }
    }
}

/// One try from the beginning: opens a session, sends, closes it.
async fn attempt(registry: &Registry, repository: &Reference, content: &Content<'_>, chunk: Option<u64>) -> Result<(), Ended> {
    let url = registry.repository_url(repository, "blobs/uploads/")?;
    let scopes = [scope(repository, "pull,push")];
    let answer = registry.send(&Call::new(Method::POST, url), &scopes).await?;
    if answer.status() != StatusCode::ACCEPTED {
        return Err(Ended::Failed(refused(answer).await));
    }
    let session = session(registry, &answer)?;
    let least = answer.named("oci-chunk-min-length").and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    answer.drain().await;
    let sent = match chunk {
        None => whole(registry, &scopes, &session, content).await,
        Some(size) if least > LARGEST => {
            Err(Ended::Failed(registry.malformed(format!("pieces of at least {least} bytes are wanted, {size} were meant"))))
        }
        Some(size) => pieces(registry, &scopes, &session, content, size.max(least)).await,
    };
    if sent.is_err() {
        give_up(registry, repository, session).await;
    }
    sent
}

/// Where the session goes on. It may be at another host, but never one that replies must not name.
fn session(registry: &Registry, answer: &Answer) -> Result<Url, TransferError> {
    let mut url = answer.location().ok_or_else(|| registry.malformed("an upload without Location"))??;
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let forbid = |reason| TransferError::Forbidden {
        context: format!("Post \"{}\": ", exchange::shown(&answer.url)),
        target: exchange::shown(&url),
        reason,
    };
    if !matches!(url.scheme(), "http" | "https")
        || (url.scheme() == "http" && answer.url.scheme() == "https" && !registry.endpoint.insecure)
    {
        return Err(forbid("it leads from https to http"));
    }
    exchange::check_target(&url, &registry.endpoint.base).map_err(forbid)?;
    Ok(url)
}

fn closing(session: &Url, digest: &Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}

/// Everything in one PUT.
async fn whole(registry: &Registry, scopes: &[String], session: &Url, content: &Content<'_>) -> Result<(), Ended> {
    let mut call = Call::new(Method::PUT, closing(session, content.digest))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        .header(CONTENT_LENGTH, HeaderValue::from(content.size));
    for _ in 0..=REDIRECTS {
        let proof = registry.proof(&call, scopes).await?;
        let answer = stream(registry, &call, proof.as_ref(), content).await?;
        match exchange::redirect(&call, &call.url, &answer, &registry.endpoint.base, registry.endpoint.insecure)? {
            Some(target) => call.url = target,
            None => return finish(registry, &call, scopes, answer, proof).await,
        }
    }
    Err(Ended::Failed(registry.malformed(format!("stopped after {REDIRECTS} redirects"))))
}

/// What the answer to the bytes means.
async fn finish(registry: &Registry, call: &Call, scopes: &[String], answer: Answer, proof: Option<HeaderValue>) -> Result<(), Ended> {
    match answer.status() {
        StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
            answer.drain().await;
            Ok(())
        }
        StatusCode::UNAUTHORIZED => match registry.renew(call, scopes, &answer, proof).await? {
            true => Err(Ended::Renewed),
            false => Err(Ended::Failed(refused(answer).await)),
        },
        status if is_unfit(status) => Err(Ended::TooLarge(refused(answer).await)),
        // Behind some balancers a session is known to one server only.
        StatusCode::NOT_FOUND => Err(Ended::Broken(refused(answer).await, None)),
        status if exchange::is_passing(status) => {
            let asked = answer.retry_after();
            Err(Ended::Broken(refused(answer).await, asked))
        }
        _ => Err(Ended::Failed(refused(answer).await)),
    }
}

/// A body that another form may get past.
fn is_unfit(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::METHOD_NOT_ALLOWED | StatusCode::LENGTH_REQUIRED | StatusCode::NOT_IMPLEMENTED
    )
}

/// A refusal, also where its status is a success of the wrong sort.
async fn refused(answer: Answer) -> TransferError {
    answer.refusal().await
}

/// Sends the source as the body of a request, and tells its progress.
async fn stream(registry: &Registry, call: &Call, proof: Option<&HeaderValue>, content: &Content<'_>) -> Result<Answer, Ended> {
    let timing = &registry.state.config.timing;
    let reader = (content.open)().map_err(TransferError::Source)?;
    let (sent, mut news) = watch::channel(0);
    let fault = Arc::new(Mutex::new(None));
    let body = body(reader, content.size, sent, &fault);
    (content.progress)(0);
    let request = exchange::once(&registry.http, call, &call.url, proof, body, None, timing);
    tokio::pin!(request);
    let mut deadline = Instant::now() + timing.connect + timing.stall;
    let mut sending = true;
    let outcome = loop {
        tokio::select! {
            outcome = &mut request => break outcome,
            more = news.changed(), if sending => {
                sending = more.is_ok();
                let count = *news.borrow_and_update();
                (content.progress)(count);
                let patience = if count == content.size || !sending { PATIENCE } else { 1 };
                deadline = Instant::now() + timing.stall * patience;
            }
            () = tokio::time::sleep_until(deadline) => {
                let cause = "net/http: request canceled (Client.Timeout exceeded while sending body)".to_owned();
                let url = exchange::shown(&call.url);
                break Err(Failed { error: TransferError::Transport { method: call.label.to_owned(), url, cause }, permanent: false });
            }
        }
    };
    if let Some(error) = lock(&fault).take() {
        return Err(Ended::Failed(TransferError::Source(error)));
    }
    let answer = outcome?;
    // The answer may overtake the last news.
    if news.has_changed().unwrap_or(true) {
        (content.progress)(*news.borrow_and_update());
    }
    Ok(answer)
}

/// The source as a body: a blocking thread reads, a short queue lies between.
fn body(mut reader: Box<dyn Read + Send>, size: u64, sent: watch::Sender<u64>, fault: &Arc<Mutex<Option<io::Error>>>) -> reqwest::Body {
    let (sender, queue) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let fault = Arc::clone(fault);
    tokio::task::spawn_blocking(move || {
        let mut left = size;
        while left > 0 {
            let piece = match read_piece(&mut reader, left.min(PIECE as u64)) {
                Ok(piece) => piece,
                Err(error) => {
                    let told = io::Error::new(error.kind(), "the source failed");
                    *lock(&fault) = Some(error);
                    let _closed = sender.blocking_send(Err(told));
                    return;
                }
            };
            left -= piece.len() as u64;
            if sender.blocking_send(Ok(piece)).is_err() {
                return;
            }
        }
    });
    let stream = futures_util::stream::unfold((queue, sent, 0), |(mut queue, sent, count)| async move {
        let piece = queue.recv().await?;
        let count = count + piece.as_ref().map_or(0, |piece| piece.len() as u64);
        sent.send_replace(count);
        Some((piece, (queue, sent, count)))
    });
    reqwest::Body::wrap_stream(stream)
}

/// Reads exactly so many bytes.
fn read_piece(reader: &mut (dyn Read + Send), length: u64) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    reader.take(length).read_to_end(&mut piece)?;
    if (piece.len() as u64) < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the content is shorter than its size"));
    }
    Ok(Bytes::from(piece))
}

/// Everything in several PATCHes, and an empty PUT.
async fn pieces(registry: &Registry, scopes: &[String], session: &Url, content: &Content<'_>, size: u64) -> Result<(), Ended> {
    let mut reader = (content.open)().map_err(TransferError::Source)?;
    let mut session = session.clone();
    let mut begin = 0;
    (content.progress)(0);
    while begin < content.size {
        let length = size.min(content.size - begin);
        let (back, piece) = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut reader, length);
            (reader, piece)
        })
        .await
        .map_err(|error| TransferError::Source(io::Error::other(error)))?;
        reader = back;
        let range = format!("{begin}-{}", begin + length - 1);
        let mut call = Call::new(Method::PATCH, session.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_RANGE, HeaderValue::from_str(&range).map_err(|error| TransferError::Invalid(error.to_string()))?);
        call.body = piece.map_err(TransferError::Source)?;
        let (answer, proof) = exchange_once(registry, &call, scopes).await?;
        if !matches!(answer.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED) {
            finish(registry, &call, scopes, answer, proof).await?;
            return Err(Ended::Failed(registry.malformed("a piece was not accepted")));
        }
        session = self::session(registry, &answer)?;
        answer.drain().await;
        begin += length;
        (content.progress)(begin);
    }
    let call = Call::new(Method::PUT, closing(&session, content.digest)).header(CONTENT_LENGTH, HeaderValue::from(0));
    let (answer, proof) = exchange_once(registry, &call, scopes).await?;
    finish(registry, &call, scopes, answer, proof).await
}

async fn exchange_once(registry: &Registry, call: &Call, scopes: &[String]) -> Result<(Answer, Option<HeaderValue>), Ended> {
    let timing = &registry.state.config.timing;
    let proof = registry.proof(call, scopes).await?;
    let patience = Some(timing.stall * PATIENCE);
    let answer = exchange::once(&registry.http, call, &call.url, proof.as_ref(), call.body.clone().into(), patience, timing).await?;
    Ok((answer, proof))
}
