//! The engine's API from the client's side: where it is, requests, streams.

mod call;
mod demux;
mod dial;
mod hijack;
mod upload;

pub(crate) use call::{Call, escape, read_all};
pub(crate) use demux::Demux;
pub(crate) use dial::Endpoint;
pub(crate) use hijack::{Hijacked, Reader};
pub(crate) use upload::{Body, Sender, channel};

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use http::{Method, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use crate::error::{CliError, Outcome};

/// Newest API that is spoken.
pub(crate) const NEWEST: &str = "1.51";

/// Starts an engine where none answers.
pub(crate) type Starter = fn() -> Result<(), CliError>;

/// A way to an engine.
pub(crate) struct Client {
    endpoint: Endpoint,
    /// Further headers of each request, from the configuration file.
    headers: Vec<(String, String)>,
    /// Fixed by `DOCKER_API_VERSION`.
    fixed_version: Option<String>,
    starter: Option<Starter>,
    server: OnceCell<Server>,
    idle: RefCell<Option<SendRequest<Body>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What a ping told.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The version to speak.
    pub(crate) api: String,
    /// It is one of ours, and takes what only ours take.
    pub(crate) ours: bool,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint, headers: Vec<(String, String)>, fixed_version: Option<String>, starter: Option<Starter>) -> Self {
        Self { endpoint, headers, fixed_version, starter, server: OnceCell::new(), idle: RefCell::new(None) }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::GET, path.into())
    }

    pub(crate) fn post(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::POST, path.into())
    }

    pub(crate) fn put(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::PUT, path.into())
    }

    pub(crate) fn head(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::HEAD, path.into())
    }

    pub(crate) fn delete(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::DELETE, path.into())
    }

    /// Asks the engine which API it speaks; once.
    pub(crate) async fn server(&self) -> Outcome<&Server> {
        if let Some(server) = self.server.get() {
            return Ok(server);
        }
        let (response, sender) = self.ping().await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let theirs = header("Api-Version");
        let api = match &self.fixed_version {
            Some(version) => version.clone(),
            None if theirs.is_empty() => "1.24".into(),
            None if older(&theirs, NEWEST) => theirs,
            None => NEWEST.into(),
        };
        let ours = header("Server").contains("+sampan");
        *self.idle.borrow_mut() = sender;
        Ok(self.server.get_or_init(|| Server { api, ours }))
    }

    /// Asks whether an engine is there. One that is just being killed still takes connections and then drops them: asking harms
    /// nothing, so it is done again.
    async fn ping(&self) -> Outcome<(Response<Incoming>, Option<SendRequest<Body>>)> {
        let mut tries = 0;
        loop {
            match self.exchange(Method::HEAD, "/_ping", &[], Body::empty()).await {
                Err(error) if error.text.starts_with("error during connect") && tries < 20 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    }

    /// Says what went wrong with a connection, in Docker's words.
    fn cannot_connect(&self, error: &std::io::Error, method: &Method, path: &str) -> CliError {
        let host = self.endpoint.to_string();
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                let socket = host.strip_prefix("unix://").unwrap_or(&host);
                let verb = if *method == Method::GET {
                    "Get"
                } else if *method == Method::HEAD {
                    "Head"
                } else {
                    "Post"
                };
                CliError::new(format!(
                    "permission denied while trying to connect to the Docker daemon socket at {host}: {verb} \"http://{}{path}\": dial unix {socket}: connect: permission denied",
                    socket.replace('/', "%2F")
                ))
                .hint("the socket belongs to root: use sudo, or let your group have it with sampan daemon --group")
            }
            _ => CliError::new(format!("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")),
        }
    }
}

/// Whether a version comes before another.
pub(crate) fn older(left: &str, right: &str) -> bool {
    let numbers = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    numbers(left) < numbers(right)
}
