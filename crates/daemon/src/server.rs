//! The HTTP server: listeners, versions, headers, and the way to the routes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sampan_base::Cancel;
use sampan_build::Builder;
use sampan_engine::Engine;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::handover::Handover;
use crate::respond::{ApiError, Body};
use crate::routes;
use crate::{API, MIN_API, VERSION};

/// How long requests under way may take to finish when the server ends.
const GRACE: Duration = Duration::from_secs(3);

/// Where to listen.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket that is listening.
    Unix(std::os::unix::net::UnixListener),
}

/// What is served.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where.
    pub listeners: Vec<Listener>,
    /// The engine.
    pub engine: Arc<Engine>,
    /// The builder.
    pub builder: Arc<Builder>,
    /// True ends the server.
    pub shutdown: watch::Receiver<bool>,
    /// Version of this program.
    pub version: String,
}

/// What every handler gets.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) handover: Arc<Handover>,
    /// Builds with an id that somebody may cancel.
    pub(crate) builds: Mutex<HashMap<String, Cancel>>,
    pub(crate) version: String,
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// A request with its version and its path without it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request<Incoming>,
    pub(crate) path: String,
    pub(crate) query: crate::query::Query,
    pub(crate) api: (u32, u32),
}

/// Serves until told to stop; open requests may finish for a moment.
///
/// # Errors
/// When a listener cannot be used.
pub async fn serve(config: ServerConfig) -> std::io::Result<()> {
    let context = Arc::new(Context {
        engine: config.engine,
        builder: config.builder,
        builds: Mutex::default(),
        handover: Arc::default(),
        version: config.version,
        shutdown: config.shutdown.clone(),
    });
    let mut tasks = Vec::new();
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    for Listener::Unix(listener) in config.listeners {
        listener.set_nonblocking(true)?;
        if let Some(path) = listener.local_addr().ok().as_ref().and_then(std::os::unix::net::SocketAddr::as_pathname)
            && let Err(error) = context.handover.listen(path)
        {
            tracing::warn!(%error, "folders cannot be handed over: build contexts are sent as archives");
        }
        let listener = UnixListener::from_std(listener)?;
        tasks.push(tokio::spawn(accept(listener, Arc::clone(&context), config.shutdown.clone(), open.clone())));
    }
    for task in tasks {
        drop(task.await);
    }
    // Every connection holds a sender; followers of logs and events may never end on their own.
    drop(open);
    if tokio::time::timeout(GRACE, all_closed.recv()).await.is_err() {
        tracing::info!("open connections are cut off");
    }
    Ok(())
}

async fn accept(listener: UnixListener, context: Arc<Context>, mut shutdown: watch::Receiver<bool>, open: mpsc::Sender<()>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = shutdown.changed() => return,
        };
        let (context, shutdown, open) = (Arc::clone(&context), shutdown.clone(), open.clone());
        tokio::spawn(async move {
            connection(stream, context, shutdown).await;
            drop(open);
        });
    }
}

/// One client's connection, until it ends or the server does: then the answer under way is finished.
async fn connection(stream: UnixStream, context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(move |request| answer(Arc::clone(&context), request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(60))
        .max_buf_size(256 * 1024)
        .half_close(true)
        .title_case_headers(true);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = shutdown.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection");
    }
}

async fn answer(context: Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_ping = path.ends_with("/_ping");
    let mut response = match call(request) {
        Ok(call) => routes::dispatch(context, call).await.unwrap_or_else(ApiError::into_response),
        Err(error) => error.into_response(),
    };
    tracing::debug!(%method, %path, status = response.status().as_u16(), "request");
    add_headers(&mut response, is_ping);
    Ok(response)
}

fn add_headers(response: &mut Response<Body>, is_ping: bool) {
    let server = format!("Docker/{VERSION} (linux)");
    let api = format!("{}.{}", API.0, API.1);
    let mut add = |key: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(key, value);
        }
    };
    add("Server", &server);
    add("Api-Version", &api);
    add("Ostype", "linux");
    add("Docker-Experimental", "false");
    if is_ping {
        add("Cache-Control", "no-cache, no-store, must-revalidate");
        add("Pragma", "no-cache");
        add("Builder-Version", "1");
        add("Swarm", "inactive");
    }
}

fn call(request: Request<Incoming>) -> Result<Call, ApiError> {
    let path = request.uri().path().to_owned();
    let query = crate::query::Query::parse(request.uri().query().unwrap_or_default());
    let (api, rest) = version(&path)?;
    let path = crate::query::percent_decode(rest);
    Ok(Call { request, path, query, api })
}

/// Splits `/v1.41/…`; a path without version is of the newest.
pub(crate) fn version(path: &str) -> Result<((u32, u32), &str), ApiError> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok((API, path)) };
    let (word, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let Some((major, minor)) = word.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?))) else {
        return Ok((API, path));
    };
    if (major, minor) < MIN_API {
        return Err(ApiError::invalid(format!(
            "client version {word} is too old. Minimum supported API version is {}.{}, please upgrade your client to a newer version",
            MIN_API.0, MIN_API.1
        )));
    }
    if (major, minor) > API {
        return Err(ApiError::invalid(format!("client version {word} is too new. Maximum supported API version is {}.{}", API.0, API.1)));
    }
    Ok(((major, minor), rest))
}

/// Runs blocking work of the engine on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("internal error: {error}")))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_negotiated() {
        assert_eq!(version("/v1.41/containers/json").unwrap(), ((1, 41), "/containers/json"));
        assert_eq!(version("/volumes").unwrap(), ((1, 51), "/volumes"));
        assert_eq!(version("/v1.51x/_ping").unwrap(), ((1, 51), "/v1.51x/_ping"));
        assert_eq!(version("/v1.+5/_ping").unwrap(), ((1, 51), "/v1.+5/_ping"));
        assert_eq!(
            version("/v1.23/x").unwrap_err().message,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(version("/v1.99/x").unwrap_err().message, "client version 1.99 is too new. Maximum supported API version is 1.51");
    }
}
