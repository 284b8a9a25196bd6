//! Bodies between asynchronous HTTP and blocking engine: request bodies as `Read`, answers as `Write`.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use sampan_wire::Fields;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::respond::{ApiError, Body};

/// Largest JSON body.
const MAX_JSON: usize = 8 << 20;
/// How much of a body is read for nothing.
const MAX_DRAIN: usize = 64 << 20;
/// Pieces under way between the two sides.
const DEPTH: usize = 16;

/// Reads a request's JSON document. Only `application/json` is taken; an empty body needs no type.
pub(crate) async fn json_body(request: http::Request<Incoming>) -> Result<Fields, ApiError> {
    let kind = request.headers().get(http::header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let bytes = collect(request.into_body()).await?;
    check_type(kind.as_deref(), bytes.is_empty())?;
    crate::query::parse_body(&bytes)
}

/// Reads a request's JSON document where there may be none.
pub(crate) async fn optional_json_body(request: http::Request<Incoming>) -> Result<Fields, ApiError> {
    let kind = request.headers().get(http::header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let bytes = collect(request.into_body()).await?;
    if bytes.is_empty() {
        return Ok(Fields::default());
    }
    check_type(kind.as_deref(), false)?;
    crate::query::parse_body(&bytes)
}

fn check_type(kind: Option<&str>, is_empty: bool) -> Result<(), ApiError> {
    let Some(kind) = kind else {
        return if is_empty { Ok(()) } else { Err(ApiError::invalid("malformed Content-Type header (): mime: no media type")) };
    };
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/json" => Ok(()),
        "" => Err(ApiError::invalid(format!("malformed Content-Type header ({kind}): mime: no media type"))),
        other => Err(ApiError::invalid(format!("unsupported Content-Type header ({other}): must be 'application/json'"))),
    }
}

/// Reads a small body whole.
pub(crate) async fn collect(mut body: Incoming) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::invalid(format!("cannot read the request body: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if out.len() + data.len() > MAX_JSON {
                return Err(ApiError::new(http::StatusCode::PAYLOAD_TOO_LARGE, "request body is larger than 8 MiB"));
            }
            out.extend_from_slice(data);
        }
    }
    Ok(out)
}

/// A request body that a blocking thread reads.
#[derive(Debug)]
pub(crate) struct BodyReader {
    pieces: Receiver<io::Result<Bytes>>,
    present: Bytes,
}

/// Begins to read a body; must be called in the runtime.
pub(crate) fn reader(mut body: Incoming) -> BodyReader {
    let (sender, pieces) = channel(DEPTH);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(_) => continue,
                },
                Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
            };
            if piece.is_err() {
                drop(sender.send(piece).await);
                return;
            }
            if sender.send(piece).await.is_err() {
                return drain(body).await;
            }
        }
    });
    BodyReader { pieces, present: Bytes::new() }
}

/// Reads on after a refusal, within reason: a client that still sends would see a broken pipe instead of the answer.
pub(crate) async fn drain(mut body: Incoming) {
    let mut left = MAX_DRAIN;
    let work = async {
        while let Some(Ok(frame)) = body.frame().await {
            let count = frame.data_ref().map_or(0, Bytes::len);
            if count > left {
                return;
            }
            left -= count;
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(10), work).await);
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.present = piece?,
            }
        }
        let count = buffer.len().min(self.present.len());
        buffer[..count].copy_from_slice(&self.present.split_to(count));
        Ok(count)
    }
}

/// The writing end of an answer's body.
#[derive(Debug, Clone)]
pub(crate) struct BodyWriter {
    pieces: Sender<io::Result<Bytes>>,
}

/// A body that is written as it goes out.
pub(crate) fn streaming() -> (BodyWriter, Body) {
    let (pieces, receiver) = channel(DEPTH);
    let body = StreamBody::new(Pieces(receiver)).boxed();
    (BodyWriter { pieces }, body)
}

struct Pieces(Receiver<io::Result<Bytes>>);

impl futures_util::Stream for Pieces {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl BodyWriter {
    /// Sends a piece; `false` when the client is gone.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.pieces.send(Ok(bytes.into())).await.is_ok()
    }

    /// Sends a piece from a blocking thread.
    pub(crate) fn send_blocking(&self, bytes: impl Into<Bytes>) -> bool {
        self.pieces.blocking_send(Ok(bytes.into())).is_ok()
    }

    /// Breaks the answer off, so that the client sees that it is not whole.
    pub(crate) fn abort(&self, error: io::Error) {
        drop(self.pieces.blocking_send(Err(error)));
    }

    /// Resolves when the client is gone.
    pub(crate) async fn closed(&self) {
        self.pieces.closed().await;
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.send_blocking(Bytes::copy_from_slice(bytes)) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check_type;

    #[test]
    fn only_json_is_taken() {
        let message = |kind| check_type(kind, false).map_err(|error| error.message);
        assert_eq!(message(Some("application/json")), Ok(()));
        assert_eq!(message(Some("Application/JSON; charset=utf-8")), Ok(()));
        assert_eq!(message(Some("text/plain")).unwrap_err(), "unsupported Content-Type header (text/plain): must be 'application/json'");
        assert_eq!(message(Some("")).unwrap_err(), "malformed Content-Type header (): mime: no media type");
        assert!(message(None).is_err() && check_type(None, true).is_ok());
    }
}
