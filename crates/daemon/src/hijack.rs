//! Hijacked connections: after the answer's head the socket carries a process's streams.

use std::os::fd::OwnedFd;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sampan_engine::{Attached, Subscription};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::respond::{Body, empty};

/// How long the end of a process may come after the end of its output before the client sees the latter.
const LINGER: Duration = Duration::from_secs(2);

/// How a client wants to get output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Framing {
    /// The answer's head names frames as such.
    pub(crate) announced: bool,
    /// Frames also around what a terminal says: the client has asked for no terminal.
    pub(crate) wanted: bool,
}

/// A piece of standard output with Docker's header.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0];
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Answers with a switch of protocols and joins the client with a process's socket.
///
/// With `end` the stream outlasts the output until the exit code is known: clients ask for it as soon as the stream is over.
pub(crate) fn join(
    upgrade: OnUpgrade,
    headers: &HeaderMap,
    attached: Attached,
    framing: Framing,
    end: Option<Subscription<i32>>,
) -> Response<Body> {
    let Attached { socket, tty } = attached;
    let asked = headers.contains_key(header::UPGRADE);
    let mut response = empty(if asked { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK });
    let frames = tty && framing.wanted;
    let kind = if framing.announced && (!tty || frames) {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if !asked {
        // Without an upgrade the connection stays HTTP: output goes out as the answer's body.
        let (writer, body) = crate::body::streaming();
        *response.body_mut() = body;
        tokio::spawn(output_only(socket, writer, end, frames));
        return response;
    }
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
    // The reason phrase is the original's; some clients print it.
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await
            && let Err(error) = splice(TokioIo::new(upgraded), socket, end, frames).await
        {
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

async fn output_only(socket: OwnedFd, writer: crate::body::BodyWriter, end: Option<Subscription<i32>>, frames: bool) {
    let stream = std::os::unix::net::UnixStream::from(socket);
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    let Ok(mut stream) = UnixStream::from_std(stream) else { return };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            return settled(end).await;
        }
        let piece = if frames { framed(&buffer[..count]) } else { buffer[..count].to_vec() };
        if !writer.send(piece).await {
            return;
        }
    }
}

/// Copies both ways; the end of the client's input is passed on, the end of the process's output ends all.
async fn splice(
    client: TokioIo<hyper::upgrade::Upgraded>,
    socket: OwnedFd,
    end: Option<Subscription<i32>>,
    frames: bool,
) -> std::io::Result<()> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    let (mut from_process, mut to_process) = UnixStream::from_std(stream)?.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let input = tokio::spawn(async move {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count) = from_client.read(&mut buffer).await {
            if count == 0 || to_process.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        drop(to_process.shutdown().await);
        // Kept open for reading: dropping it would close both ways.
        std::future::pending::<()>().await;
    });
    let mut buffer = vec![0; 64 * 1024];
    let result = loop {
        match from_process.read(&mut buffer).await {
            Ok(0) => {
                settled(end).await;
                break Ok(());
            }
            Ok(count) => {
                let piece = if frames { &framed(&buffer[..count]) } else { &buffer[..count] };
                if let Err(error) = to_client.write_all(piece).await {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    drop(to_client.shutdown().await);
    input.abort();
    result
}
