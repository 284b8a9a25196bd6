//! The bytes of a blob as a stream that outlives broken connections.
//!
//! A task of the runtime reads ahead into a short queue, the reading thread takes from it. When the connection breaks, the thread
//! asks for the rest (`Range`, and `If-Match` where the registry gave an `ETag`), through the registry again, as a redirect's
//! target may have a signature that expires.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_RANGE, ETAG, HeaderValue, IF_MATCH, RANGE};
use http::{Method, StatusCode};
use reqwest::Url;
use sampan_base::Cancel;
use sampan_oci::{Descriptor, Digest, Reference};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use crate::config::Login;
use crate::endpoint::Endpoint;
use crate::exchange::{self, Answer, Call, REDIRECTS};
use crate::registry::{Registry, scope, with_registry};
use crate::state::State;
use crate::waiting::Waiting;
use crate::{TransferError, client, refusal};

/// How many pieces are read ahead.
const AHEAD: usize = 32;
/// Progress that makes up for a broken connection: after so many bytes the tries are counted anew.
const FORGIVEN: u64 = 64 << 10;

/// Where the bytes come from.
#[derive(Debug, Clone)]
enum Source {
    Registry(Reference, Login),
    Foreign(Vec<Url>),
}

/// The bytes of a blob, from the offset asked for to its end. Dropping it closes the transfer.
///
/// A read fails with an [`io::Error`] whose inner error is a [`TransferError`]; after that the transfer is over, and the caller
/// may ask for the rest with a new offset. The digest is not checked here.
#[derive(Debug)]
pub struct BlobReader {
    state: Arc<State>,
    source: Source,
    digest: Digest,
    size: u64,
    position: u64,
    etag: Option<HeaderValue>,
    /// Bytes that a registry without ranges sends again.
    skip: u64,
    piece: Bytes,
    pump: Option<Pump>,
    /// Tries since the last progress.
    tries: u32,
    forgiven_at: u64,
    over: bool,
    waiting: Waiting,
    cancel: Cancel,
}

/// The task that reads ahead.
#[derive(Debug)]
pub(crate) struct Pump {
    pieces: Receiver<Result<Bytes, TransferError>>,
    task: JoinHandle<()>,
}

impl Pump {
    /// Waits for the next piece; `None` at the end of the body.
    pub(crate) fn next(&mut self, state: &State, cancel: &Cancel) -> Option<Result<Bytes, TransferError>> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Some(piece);
        }
        client::block(state, cancel, async { Ok(self.pieces.recv().await) }).unwrap_or_else(|error| Some(Err(error)))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BlobReader {
    pub(crate) fn open(
        state: &Arc<State>,
        repository: &Reference,
        descriptor: &Descriptor,
        offset: u64,
        login: &Login,
        (waiting, cancel): (&Waiting, &Cancel),
    ) -> Result<Self, TransferError> {
        Self::start(state, Source::Registry(repository.repository(), login.clone()), descriptor, offset, (waiting, cancel))
    }

    /// The same from addresses that need no registry.
    pub(crate) fn open_foreign(
        state: &Arc<State>,
        urls: &[String],
        descriptor: &Descriptor,
        offset: u64,
        (waiting, cancel): (&Waiting, &Cancel),
    ) -> Result<Self, TransferError> {
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let mut urls: Vec<_> = urls.iter().take(32).filter_map(|url| Url::parse(url).ok()).filter(is_web).collect();
        for url in &mut urls {
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        if urls.is_empty() {
            return Err(TransferError::Invalid(format!("layer {} has no usable address", descriptor.digest)));
        }
        Self::start(state, Source::Foreign(urls), descriptor, offset, (waiting, cancel))
    }

    fn start(
        state: &Arc<State>,
        source: Source,
        descriptor: &Descriptor,
        offset: u64,
        (waiting, cancel): (&Waiting, &Cancel),
    ) -> Result<Self, TransferError> {
        if offset > descriptor.size {
            return Err(TransferError::Invalid(format!("offset {offset} lies behind the end of {}", descriptor.digest)));
        }
        let mut reader = Self {
            state: Arc::clone(state),
            source,
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            position: offset,
            etag: None,
            skip: 0,
            piece: Bytes::new(),
            pump: None,
            tries: 0,
            forgiven_at: offset,
            over: false,
            waiting: waiting.clone(),
            cancel: cancel.clone(),
        };
        if offset < descriptor.size || descriptor.size == 0 {
            reader.connect()?;
        } else {
            reader.over = true;
        }
        Ok(reader)
    }

    /// Asks for the rest.
    fn connect(&mut self) -> Result<(), TransferError> {
        self.pump = None;
        let state = Arc::clone(&self.state);
        let mut answer = client::block(&state, &self.cancel, self.request())?;
        if answer.status() == StatusCode::PRECONDITION_FAILED && self.etag.is_some() {
            // Another server's tags may differ for the same bytes; the digest will tell whether they are the same.
            self.etag = None;
            answer = client::block(&state, &self.cancel, self.request())?;
        }
        let begin = self.check(&answer)?;
        self.skip = self.position - begin;
        if self.etag.is_none() {
            // A weak tag says nothing of single bytes.
            self.etag = answer.response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
        }
        self.pump = Some(pump(&state, answer));
        Ok(())
    }

    async fn request(&self) -> Result<Answer, TransferError> {
        match &self.source {
            Source::Registry(repository, login) => {
                with_registry(&self.state, repository.domain(), login, true, &self.waiting, async |registry: Registry| {
                    let url = registry.repository_url(repository, &format!("blobs/{}", self.digest))?;
                    let scopes = [scope(repository, "pull")];
                    let answer = registry.send(&self.call(url), &scopes).await?;
                    if answer.status().is_success() || answer.status() == StatusCode::PRECONDITION_FAILED {
                        return Ok(answer);
                    }
                    Err(refusal::of_pull(answer.refusal().await, repository))
                })
                .await
            }
            Source::Foreign(urls) => {
                let mut last = None;
                for url in urls {
                    match self.ask_foreign(url).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| TransferError::Invalid(format!("layer {} has no usable address", self.digest))))
            }
        }
    }

    fn call(&self, url: Url) -> Call {
        let mut call = Call { lenient: true, ..Call::new(Method::GET, url) };
        // Whoever compresses the transfer makes lengths and ranges meaningless.
        call = call.header(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.position > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.position))
        {
            call = call.header(RANGE, range);
            if let Some(etag) = &self.etag {
                call = call.header(IF_MATCH, etag.clone());
            }
        }
        call
    }

    /// Nothing but the address is sent, and no certificate of ours is shown.
    async fn ask_foreign(&self, first: &Url) -> Result<Answer, TransferError> {
        // No host of an address that came from a manifest is trusted with more than others.
        let nowhere = Url::parse("https://invalid/").map_err(|error| TransferError::Invalid(error.to_string()))?;
        let endpoint = Endpoint { base: nowhere.clone(), host: "foreign.invalid".to_owned(), insecure: false, mirror: false };
        let http = self.state.http(&endpoint)?;
        let timing = &self.state.config.timing;
        let call = self.call(first.clone());
        let forbid = |target: &Url, reason| TransferError::Forbidden { context: call.context(), target: exchange::shown(target), reason };
        exchange::check_target(first, &nowhere).map_err(|reason| forbid(first, reason))?;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let answer = exchange::once(&http, &call, &url, None, reqwest::Body::default(), Some(timing.stall), timing).await;
            let answer = answer.map_err(|failed| failed.error)?;
            match exchange::redirect(&call, &url, &answer, &nowhere, false)? {
                Some(target) => url = target,
                None if answer.status().is_success() => return Ok(answer),
                None => return Err(answer.refusal().await),
            }
        }
        Err(TransferError::Transport {
            method: call.label.to_owned(),
            url: exchange::shown(first),
            cause: format!("stopped after {REDIRECTS} redirects"),
        })
    }

    /// Checks status and length of an answer; says at which byte it begins.
    fn check(&self, answer: &Answer) -> Result<u64, TransferError> {
        let host = || answer.url.host_str().unwrap_or_default().to_owned();
        let malformed = |problem: String| TransferError::Malformed { host: host(), problem };
        let begin = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header(&CONTENT_RANGE).and_then(content_range);
                match range {
                    Some((begin, total)) if begin == self.position && total.is_none_or(|total| total == self.size) => begin,
                    _ => return Err(malformed(format!("{} has the wrong Content-Range", self.digest))),
                }
            }
            other => return Err(malformed(format!("{} was answered with status {other}", self.digest))),
        };
        let length = answer.header(&http::header::CONTENT_LENGTH).and_then(|text| text.trim().parse::<u64>().ok());
        match length {
            Some(length) if length != self.size - begin => Err(TransferError::WrongSize {
                digest: self.digest.clone(),
                expected: self.size,
                received: length.saturating_add(begin).to_string(),
            }),
            _ => Ok(begin),
        }
    }

    /// Waits for the next piece; `None` at the end of the body.
    fn next(&mut self) -> Option<Result<Bytes, TransferError>> {
        self.pump.as_mut()?.next(&self.state, &self.cancel)
    }

    /// Takes the next bytes into `piece`; leaves it empty at the end of the blob.
    fn fill(&mut self) -> Result<(), TransferError> {
        loop {
            self.cancel.check()?;
            let problem = match self.next() {
                Some(Ok(piece)) => {
                    if self.take(piece)? {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(error @ (TransferError::Cancelled | TransferError::WrongSize { .. }))) => return Err(error),
                Some(Err(error)) => error,
                None if self.position == self.size => return Ok(()),
                // The body ended too early without saying so.
                None => {
                    TransferError::WrongSize { digest: self.digest.clone(), expected: self.size, received: (self.position).to_string() }
                }
            };
            if self.position == self.size {
                // All is there; how the connection ended does not matter.
                self.pump = None;
                return Ok(());
            }
            self.resume(problem)?;
        }
    }

    /// Keeps what is new of a piece; says whether there is something.
    fn take(&mut self, mut piece: Bytes) -> Result<bool, TransferError> {
        let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        piece.advance(again);
        self.skip -= again as u64;
        if piece.len() as u64 > self.size - self.position {
            return Err(TransferError::WrongSize {
                digest: self.digest.clone(),
                expected: self.size,
                received: format!("more than {}", self.size),
            });
        }
        self.position += piece.len() as u64;
        if self.position - self.forgiven_at >= FORGIVEN {
            self.forgiven_at = self.position;
            self.tries = 0;
        }
        self.piece = piece;
        Ok(!self.piece.is_empty())
    }

    /// Waits and asks for the rest, until all tries are used up.
    fn resume(&mut self, mut problem: TransferError) -> Result<(), TransferError> {
        loop {
            self.pump = None;
            self.tries += 1;
            let pause: Option<Duration> = exchange::download_pause(&self.state.config.timing, self.tries);
            let Some(pause) = pause else { return Err(problem) };
            tracing::debug!(digest = %self.digest, position = self.position, %problem, "taking up a broken transfer");
            if !self.waiting.rest_blocking(pause, &self.cancel) {
                return Err(TransferError::Cancelled);
            }
            match self.connect() {
                Ok(()) => return Ok(()),
                Err(error @ TransferError::Transport { .. }) => problem = error,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.piece.is_empty() && !self.over {
            if let Err(error) = self.fill() {
                self.over = true;
                self.pump = None;
                return Err(io::Error::other(error));
            }
            self.over = self.piece.is_empty();
        }
        let length = self.piece.len().min(buffer.len());
        let (target, _) = buffer.split_at_mut(length);
        self.piece.copy_to_slice(target);
        Ok(length)
    }
}

pub(crate) fn pump(state: &State, mut answer: Answer) -> Pump {
    let (sender, pieces) = channel(AHEAD);
    let task = state.handle.spawn(async move {
        loop {
            let piece = match answer.chunk().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    });
    Pump { pieces, task }
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first byte and the total.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (begin, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((begin.trim().parse().ok()?, total))
}

/// Reads a whole small blob and checks it.
pub(crate) fn document(mut reader: BlobReader, descriptor: &Descriptor) -> Result<Vec<u8>, TransferError> {
    let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or(0));
    reader.read_to_end(&mut bytes).map_err(|error| match error.downcast::<TransferError>() {
        Ok(error) => error,
        Err(error) => TransferError::Source(error),
    })?;
    verify(&descriptor.digest, &bytes)?;
    Ok(bytes)
}

/// Checks some bytes against their digest.
pub(crate) fn verify(digest: &Digest, bytes: &[u8]) -> Result<(), TransferError> {
    let received = digest_of(digest.algorithm(), bytes);
    if received == digest.as_str() {
        return Ok(());
    }
    Err(TransferError::WrongDigest { digest: digest.clone(), received })
}

fn digest_of(algorithm: &str, bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hex = match algorithm {
        "sha512" => hex::encode(sha2::Sha512::digest(bytes)),
        "sha384" => hex::encode(sha2::Sha384::digest(bytes)),
        _ => return Digest::sha256_of(bytes).to_string(),
    };
    format!("{algorithm}:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, wanted) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("bytes 99999999999999999999-1/1", None),
            ("5-9/10", None),
        ] {
            assert_eq!(content_range(text), wanted, "{text}");
        }
    }

    #[test]
    fn digests_of_all_algorithms_are_checked() {
        for algorithm in ["sha256", "sha384", "sha512"] {
            let digest: Digest = digest_of(algorithm, b"x").parse().unwrap();
            assert!(verify(&digest, b"x").is_ok() && verify(&digest, b"y").is_err());
        }
    }
}
