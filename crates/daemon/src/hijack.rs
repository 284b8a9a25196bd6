//! Hijacked connections: after the answer's head the socket carries a process's streams.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sampan_engine::{LogStream, Subscription};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::escape::Escape;
use crate::frames::Frames;
use crate::respond::{Body, empty};
use crate::routes::streams::Format;

/// How long the end of a process may come after the end of its output before the client sees the latter.
const LINGER: Duration = Duration::from_secs(2);
/// How long output waits for a client that has not read the answer's head, and how often that is looked at.
const HEAD_PATIENCE: Duration = Duration::from_millis(500);
const HEAD_LOOK: Duration = Duration::from_micros(500);
/// How much of a log is sent at a time.
const PIECE: usize = 128 * 1024;

/// What a connection carries.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// What was said before: sent first.
    pub(crate) log: Option<(LogStream, Format)>,
    /// The process's side; without it the log is all.
    pub(crate) socket: Option<OwnedFd>,
    /// The process's side carries plain bytes, as a terminal does; else frames.
    pub(crate) process_is_plain: bool,
    /// The client wants plain bytes.
    pub(crate) client_is_plain: bool,
    /// The client knows a content type for frames.
    pub(crate) names_frames: bool,
    /// The stream outlasts the output until this exit code is known: clients ask for it as soon as the stream is over.
    pub(crate) end: Option<Subscription<i32>>,
    /// The keys with which the client leaves.
    pub(crate) leave: Option<Leave>,
}

/// How a client leaves.
pub(crate) struct Leave {
    /// The keys.
    pub(crate) keys: Escape,
    /// What the client is told then.
    pub(crate) farewell: &'static str,
    /// What else is done then.
    pub(crate) tell: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Leave {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Leave").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Answers with a switch of protocols and joins the client with a process's socket.
pub(crate) fn join(upgrade: OnUpgrade, headers: &HeaderMap, session: Session) -> Response<Body> {
    let asked = headers.contains_key(header::UPGRADE);
    let mut response = empty(if asked { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK });
    let framed = asked && session.names_frames && !session.client_is_plain;
    let kind = if framed { "application/vnd.docker.multiplexed-stream" } else { "application/vnd.docker.raw-stream" };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if !asked {
        // Without an upgrade the connection stays HTTP: output goes out as the answer's body.
        let (writer, body) = crate::body::streaming();
        *response.body_mut() = body;
        tokio::spawn(async move {
            if let Err(error) = output_only(session, &writer).await {
                tracing::debug!(%error, "attached client");
            }
        });
        return response;
    }
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
    // The reason phrase is the original's; some clients print it.
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
    tokio::spawn(async move {
        let Ok(Ok(parts)) = upgrade.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<UnixStream>>) else { return };
        if let Err(error) = splice(parts.io.into_inner(), parts.read_buf, session).await {
            tracing::debug!(%error, "attached client");
        }
    });
    response
}

/// Waits until the process is known to have ended, within reason: it may have closed its output and go on.
async fn settled(end: Option<Subscription<i32>>) {
    let Some(mut end) = end else { return };
    let code = std::future::poll_fn(|task| end.poll_next(task));
    if tokio::time::timeout(LINGER, code).await.is_err() {
        tracing::debug!("a process closed its output and goes on");
    }
}

fn opened(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The next piece of a log; empty at its end.
fn piece((stream, format): &mut (LogStream, Format)) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while out.len() < PIECE {
        let Some(entry) = stream.next()? else { break };
        format.put(&entry, &mut out);
    }
    Ok(out)
}

async fn output_only(session: Session, writer: &crate::body::BodyWriter) -> std::io::Result<()> {
    let mut frames = Frames::between(session.process_is_plain, session.client_is_plain);
    let mut log = session.log;
    while let Some(bytes) = log.as_mut().map(piece).transpose()?.filter(|bytes| !bytes.is_empty()) {
        if !writer.send(bytes).await {
            return Ok(());
        }
    }
    let Some(socket) = session.socket else { return Ok(()) };
    let mut stream = opened(socket)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            settled(session.end).await;
            return Ok(());
        }
        let bytes = frames.turn(&buffer[..count]);
        if !bytes.is_empty() && !writer.send(bytes).await {
            return Ok(());
        }
    }
}

/// Copies both ways; the end of the client's input is passed on, the end of the process's output ends all.
async fn splice(client: UnixStream, early: Bytes, session: Session) -> std::io::Result<()> {
    // Clients in Python read the head through a buffer and drop what else they find in it.
    head_read(&client).await;
    let (from_client, mut to_client) = client.into_split();
    let mut log = session.log;
    while let Some(bytes) = log.as_mut().map(piece).transpose()?.filter(|bytes| !bytes.is_empty()) {
        to_client.write_all(&bytes).await?;
    }
    let Some(socket) = session.socket else { return to_client.shutdown().await };
    let frames = Frames::between(session.process_is_plain, session.client_is_plain);
    let (from_process, to_process) = opened(socket)?.into_split();
    let (keys, farewell) = session.leave.map_or((None, None), |leave| (Some(leave.keys), Some((leave.farewell, leave.tell))));
    let (left, leaving) = oneshot::channel();
    let input = tokio::spawn(forward(early, from_client, to_process, keys, left));
    let mut output = Output { from_process, to_client, frames };
    let result = tokio::select! {
        result = output.copy(session.end) => result,
        Ok(()) = leaving => {
            let (text, tell) = farewell.unwrap_or(("", Box::new(|| ())));
            tell();
            let bytes = if text.is_empty() { Vec::new() } else { output.frames.turn(text.as_bytes()) };
            output.to_client.write_all(&bytes).await
        }
    };
    drop(output.to_client.shutdown().await);
    input.abort();
    result
}

/// Waits until a client on the same machine has read the answer's head; not for ever, and hardly ever at all.
async fn head_read(client: &UnixStream) {
    let look = async {
        while sampan_sys::sock::unread(client.as_fd()).is_ok_and(|count| count > 0) {
            tokio::time::sleep(HEAD_LOOK).await;
        }
    };
    drop(tokio::time::timeout(HEAD_PATIENCE, look).await);
}

/// Passes on what the client types, until it ends its input or types the keys to leave.
async fn forward(early: Bytes, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut keys: Option<Escape>, left: oneshot::Sender<()>) {
    let mut buffer = vec![0; 32 * 1024];
    let mut bytes = early.to_vec();
    loop {
        let found = match &mut keys {
            Some(keys) => {
                let (kept, found) = keys.feed(&bytes);
                bytes = kept;
                found
            }
            None => false,
        };
        if to.write_all(&bytes).await.is_err() {
            break;
        }
        if found {
            let _the_session_may_be_over = left.send(());
            return std::future::pending().await;
        }
        match from.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes = buffer[..count].to_vec(),
            _ => break,
        }
    }
    drop(to.shutdown().await);
    // Kept open for reading: dropping it would close both ways. `left` too: it ends the session only when it says so.
    std::future::pending::<()>().await;
    drop(left);
}

/// The way from the process to the client.
struct Output {
    from_process: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    frames: Frames,
}

impl Output {
    async fn copy(&mut self, end: Option<Subscription<i32>>) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = self.from_process.read(&mut buffer).await?;
            if count == 0 {
                settled(end).await;
                return Ok(());
            }
            match &mut self.frames {
                Frames::Keep => self.to_client.write_all(&buffer[..count]).await?,
                frames => self.to_client.write_all(&frames.turn(&buffer[..count])).await?,
            }
        }
    }
}
