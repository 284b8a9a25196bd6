//! Connections: accepted, limited, wrapped in TLS, served by HTTP/1.1 or HTTP/2, ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::log::{Line, Log};
use super::tls::Certificates;
use crate::Registry;
use crate::handlers::{Reply, handle};
use crate::metrics::Labels;

/// How many connections there may be.
const CONNECTIONS: usize = 8192;
/// How long a client may take for its head, and for the handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client that does not read is kept, milliseconds.
const UNREAD: u32 = 120_000;
/// Bytes of a connection's read buffer, and of an HTTP/2 stream under way.
const WINDOW: u32 = 1 << 20;

/// Serves until told to stop; then waits for requests under way, for as long as `grace`.
pub(super) async fn accept(
    listener: TcpListener,
    registry: Arc<Registry>,
    certificates: Option<Arc<Certificates>>,
    log: Arc<Log>,
    mut stopped: watch::Receiver<bool>,
    grace: Duration,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: others must end first.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        settle(&stream);
        let acceptor = certificates.as_ref().map(|certificates| certificates.acceptor());
        let (registry, log, watcher) = (Arc::clone(&registry), Arc::clone(&log), graceful.watcher());
        connections.spawn(async move {
            connection(stream, peer, acceptor, registry, log, watcher).await;
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time and are broken off");
    }
}

fn settle(stream: &TcpStream) {
    // A connection that does not take these works too.
    drop(stream.set_nodelay(true));
    let _not_here = rustix::net::sockopt::set_tcp_user_timeout(stream, UNREAD);
    let _not_here = rustix::net::sockopt::set_socket_keepalive(stream, true);
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    registry: Arc<Registry>,
    log: Arc<Log>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    match acceptor {
        None => serve(stream, peer, registry, log, watcher).await,
        Some(acceptor) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, peer, registry, log, watcher).await,
            Ok(Err(error)) => tracing::debug!("no TLS with {peer}: {error}"),
            Err(_) => tracing::debug!("no TLS with {peer}: it took too long"),
        },
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    registry: Arc<Registry>,
    log: Arc<Log>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(WINDOW as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(4 * WINDOW)
        .initial_connection_window_size(16 * WINDOW)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(250)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(PATIENCE);
    let service = service_fn(move |request: Request<Incoming>| {
        let (registry, log) = (Arc::clone(&registry), Arc::clone(&log));
        async move { Ok::<_, std::convert::Infallible>(answer(registry, log, peer, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!("connection of {peer}: {error}");
    }
}

async fn answer(registry: Arc<Registry>, log: Arc<Log>, peer: SocketAddr, request: Request<Incoming>) -> Reply {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    registry.metrics.in_flight.inc();
    let (reply, seen) = handle(Arc::clone(&registry), peer, request).await;
    registry.metrics.in_flight.dec();
    let status = reply.status().as_u16();
    let known = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"];
    let labelled = known.into_iter().find(|name| *name == method.as_str()).unwrap_or("OTHER");
    registry.metrics.requests.get_or_create(&Labels { method: labelled, route: seen.route, status }).inc();
    let bytes = reply.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    log.write(&Line { peer, identity: &seen.identity, method: method.as_str(), path: &path, status, bytes, took: begun.elapsed() });
    reply
}
