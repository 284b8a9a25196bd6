//! HTTP: from a request to an answer. The router, who may ask, and what every answer has in common.
//!
//! Operations of the store block; they run where they stand, and the runtime moves the other tasks of the thread away
//! (`block_in_place`), so that bytes of bodies are hashed and written without a message for each frame.

mod blobs;
mod body;
mod direct;
mod lists;
mod log;
mod manifests;
mod metrics;
mod patience;
mod server;
mod tokens;
mod uploads;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

pub use server::{Running, ServeError, serve};

use self::body::Body;
use self::log::{LogSender, Logged, Started};
use crate::auth::Auth;
use crate::config::{Config, is_loopback};
use crate::error::{Code, RegistryError, Result};
use crate::rights::{Action, Identity};
use crate::route::{Query, Route, RouteError};
use crate::store::Store;

/// A registry that serves.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) store: Arc<Store>,
    pub(crate) auth: Auth,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<metrics::Metrics>,
    pub(crate) log: log::Log,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) tls: bool,
    pub(crate) log: LogSender,
    /// What of files goes out directly; none with TLS.
    pub(crate) window: Option<direct::Window>,
}

/// A request on its way.
pub(crate) struct Call<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) peer: &'a Peer,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) host: String,
    pub(crate) identity: Arc<Identity>,
    pub(crate) body: Incoming,
}

/// An answer without the marks that all have.
pub(crate) type Answer = Response<Body>;

/// Runs what blocks.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// An answer of a status with nothing in it.
pub(crate) fn answer(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// Sets a header whose value is of this program's making; one that cannot be a header is left out.
pub(crate) fn set(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Registry {
    /// Answers a request; never fails.
    pub(crate) async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Logged> {
        let (head, body) = request.into_parts();
        let route = Route::parse(head.uri.path());
        let started = Started {
            at: Instant::now(),
            client: peer.address,
            method: head.method.clone(),
            path: head.uri.path_and_query().map_or_else(String::new, |path| path.as_str().to_owned()),
            route: route.as_ref().map_or("none", Route::label),
            flight: self.metrics.asked(),
        };
        let host = head.uri.authority().map(|host| host.as_str().to_owned());
        let host = host.or_else(|| text(&head.headers, "host").map(str::to_owned)).unwrap_or_default();
        let mut call = Call {
            registry: self,
            peer: &peer,
            query: Query::parse(head.uri.query().unwrap_or_default()),
            path: head.uri.path().to_owned(),
            method: head.method,
            headers: head.headers,
            host,
            identity: Arc::new(Identity::stranger(None)),
            body,
        };
        let outcome = call.run(route).await;
        let identity = Some(Arc::clone(&call.identity));
        let is_head = call.method == Method::HEAD;
        let mut answer = outcome.unwrap_or_else(|error| call.refusal(&error, &started.path));
        let failed = answer.status().as_u16() >= 400;
        if failed {
            call.drain().await;
        }
        if is_head {
            let length = answer.body().size_hint().exact().unwrap_or(0);
            if !answer.headers().contains_key(header::CONTENT_LENGTH) && failed {
                answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            *answer.body_mut() = Body::empty();
        }
        let log = peer.log.clone();
        finish(answer, started, identity, log, Arc::clone(&self.metrics))
    }
}

fn finish(
    mut answer: Answer,
    started: Started,
    identity: Option<Arc<Identity>>,
    log: LogSender,
    metrics: Arc<metrics::Metrics>,
) -> Response<Logged> {
    let headers = answer.headers_mut();
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let status = answer.status().as_u16();
    answer.map(|body| Logged::new(body, status, started, identity, log, metrics))
}

impl Call<'_> {
    async fn run(&mut self, route: Result<Route, RouteError>) -> Result<Answer> {
        match &route {
            Ok(Route::Health) => return self.health(),
            Ok(Route::Token) => return self.token().await,
            _ => {}
        }
        if !is_host(&self.host) {
            return Err(RegistryError::say(Code::Unknown, "invalid Host header").status(400));
        }
        let authorization = text(&self.headers, "authorization");
        if self.headers.contains_key(header::AUTHORIZATION) && authorization.is_none() {
            return Err(RegistryError::new(Code::Unauthorized));
        }
        self.identity = self.registry.auth.identify(&self.registry.store, authorization, self.peer.address).await?;
        let route = self.allowed(route)?;
        self.dispatch(route).await
    }

    /// Checks the rights before anything else is said: what is forbidden looks like what is not there.
    fn allowed(&self, route: Result<Route, RouteError>) -> Result<Route> {
        let known = self.identity.user.is_some() || self.identity.has_token();
        let route = match route {
            Ok(route) => route,
            // A malformed path tells nothing about what is here, but strangers learn nothing at all.
            Err(error) if known || self.registry.auth.strangers().is_some() => return Err(self.no_route(&error)),
            Err(_) => return Err(RegistryError::new(Code::Unauthorized)),
        };
        let allowed = match &route {
            Route::Base => known,
            Route::Catalog => self.identity.may_list(),
            Route::Metrics => self.is_of_this_machine() || self.identity.is_admin(),
            other => other.repository().is_none_or(|name| self.identity.may(needed(&self.method, other), name)) && self.may_mount(other),
        };
        if allowed {
            return Ok(route);
        }
        let code = if self.identity.user.is_some() { Code::Denied } else { Code::Unauthorized };
        let error = RegistryError::new(code);
        // With a token the way to more is another token.
        if self.identity.user.is_some() && !self.identity.has_token() { Err(error) } else { Err(error.status(401)) }
    }

    /// Whether the source of a mount may be read. Without it the bytes are asked for, but a token that only lacks the scope can be
    /// replaced by one that has it: the challenge names both repositories.
    fn may_mount(&self, route: &Route) -> bool {
        !self.identity.has_token() || self.mount_source(route).is_none_or(|from| self.identity.may(Action::Pull, from))
    }

    /// The repository that a blob is to be mounted from.
    fn mount_source(&self, route: &Route) -> Option<&str> {
        let is_mount = matches!(route, Route::Uploads(_)) && self.query.get("mount").is_some();
        self.query.get("from").filter(|from| is_mount && crate::name::is_repository(from))
    }

    /// Whether somebody on this machine asks, and no proxy on it for somebody else.
    fn is_of_this_machine(&self) -> bool {
        const PROXIES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        is_loopback(self.peer.address) && !PROXIES.iter().any(|name| self.headers.contains_key(*name))
    }

    fn no_route(&self, error: &RouteError) -> RegistryError {
        match error {
            RouteError::Nothing => RegistryError::say(Code::Unsupported, "there is nothing at this path").status(404),
            RouteError::Name => RegistryError::new(Code::NameInvalid),
            RouteError::Digest => RegistryError::say(Code::DigestInvalid, "invalid digest"),
            RouteError::Reference(_) if self.method == Method::PUT => RegistryError::say(Code::ManifestInvalid, "invalid tag"),
            RouteError::Reference(_) => RegistryError::new(Code::ManifestUnknown),
            RouteError::Upload => RegistryError::new(Code::BlobUploadUnknown),
        }
    }

    async fn dispatch(&mut self, route: Route) -> Result<Answer> {
        let method = self.method.clone();
        let read = method == Method::GET || method == Method::HEAD;
        match route {
            Route::Base if read => Ok(json("{}".to_owned())),
            Route::Catalog if read => self.catalog(),
            Route::Metrics if read => {
                let mut answer = answer(StatusCode::OK);
                set(&mut answer, "content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8");
                *answer.body_mut() = blocking(|| self.registry.metrics.print(&self.registry.store))?.into();
                Ok(answer)
            }
            Route::Tags(name) if read => self.tags(&name),
            Route::Referrers(name, subject) if read => self.referrers(&name, &subject),
            Route::Manifest(name, reference) if read => self.get_manifest(&name, &reference),
            Route::Manifest(name, reference) if method == Method::PUT => self.put_manifest(&name, &reference).await,
            Route::Manifest(name, reference) if method == Method::DELETE => {
                blocking(|| self.registry.store.delete_manifest(&name, &reference))?;
                Ok(answer(StatusCode::ACCEPTED))
            }
            Route::Blob(name, digest) if read => self.get_blob(&name, &digest),
            Route::Blob(name, digest) if method == Method::DELETE => {
                blocking(|| self.registry.store.delete_blob(&name, &digest))?;
                Ok(answer(StatusCode::ACCEPTED))
            }
            Route::Uploads(name) if method == Method::POST => self.start_upload(&name).await,
            Route::Upload(name, id) if read => self.upload_status(&name, &id),
            Route::Upload(name, id) if method == Method::PATCH => self.continue_upload(&name, &id).await,
            Route::Upload(name, id) if method == Method::PUT => self.finish_upload(&name, &id).await,
            Route::Upload(name, id) if method == Method::DELETE => self.cancel_upload(&name, &id),
            _ => Err(RegistryError::new(Code::Unsupported)),
        }
    }

    fn health(&self) -> Result<Answer> {
        blocking(|| self.registry.store.reader().read("answer", |connection| connection.query_row("SELECT 1", [], |_| Ok(()))))?;
        Ok(json("{\"status\":\"ok\"}".to_owned()))
    }

    /// The answer that says what went wrong.
    fn refusal(&self, error: &RegistryError, path: &str) -> Answer {
        if error.status >= 500 || error.is_full() {
            let source = error.source.as_ref().map(|source| chain(&**source)).unwrap_or_default();
            tracing::error!("{} {}: {}: {source}", self.method, sampan_base::sanitize(path), error.message);
        }
        let mut answer = json(error.body());
        *answer.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match error.status {
            401 => {
                let challenge = if path.starts_with("/token") { "Basic realm=\"sampan-registry\"".to_owned() } else { self.challenge() };
                set(&mut answer, "www-authenticate", &challenge);
            }
            405 => set(&mut answer, "allow", Route::parse(self.path.as_str()).map_or("GET, HEAD", |route| methods(&route))),
            429 => set(&mut answer, "retry-after", "30"),
            _ if error.is_full() => set(&mut answer, "retry-after", "300"),
            _ => {}
        }
        answer
    }

    /// Where and with which scope to ask for a token.
    fn challenge(&self) -> String {
        let path_scope = self.registry_scope();
        let host = if is_host(&self.host) { self.host.as_str() } else { "localhost" };
        // A proxy on this machine may have ended TLS.
        let proxied = is_loopback(self.peer.address) && text(&self.headers, "x-forwarded-proto") == Some("https");
        let scheme = if self.peer.tls || proxied { "https" } else { "http" };
        let mut challenge = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{host}\"");
        if let Some(scope) = path_scope {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        if self.identity.has_token() {
            challenge.push_str(",error=\"insufficient_scope\"");
        } else if text(&self.headers, "authorization")
            .is_some_and(|value| value.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("bearer ")))
        {
            challenge.push_str(",error=\"invalid_token\"");
        }
        challenge
    }

    fn registry_scope(&self) -> Option<String> {
        let route = Route::parse(self.path.as_str()).ok()?;
        if route == Route::Catalog {
            return Some("registry:catalog:*".to_owned());
        }
        let name = route.repository()?;
        let scope = match needed(&self.method, &route) {
            Action::Pull => format!("repository:{name}:pull"),
            Action::Push => format!("repository:{name}:pull,push"),
            Action::Delete => format!("repository:{name}:delete"),
        };
        let from = self.mount_source(&route);
        Some(from.map_or(scope.clone(), |from| format!("{scope} repository:{from}:pull")))
    }

    /// The next bytes of the body, within the time that it may stand still.
    pub(crate) async fn next_bytes(&mut self) -> Result<Option<bytes::Bytes>> {
        let idle = self.registry.config.limits.idle;
        loop {
            let frame = tokio::time::timeout(idle, self.body.frame()).await;
            let frame = frame.map_err(|_| RegistryError::say(Code::Unknown, "the body of the request stood still").status(408))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    let broken = RegistryError::say(Code::SizeInvalid, "the body of the request ended too early");
                    return Err(RegistryError { source: Some(Box::new(error)), ..broken });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.registry.metrics.received(data.len() as u64);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, if it is no larger than a limit.
    pub(crate) async fn whole_body(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        let announced = self.body.size_hint().lower();
        if announced > limit as u64 {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(bytes) = self.next_bytes().await? {
            if body.len() + bytes.len() > limit {
                return Ok(None);
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Some(body))
    }

    /// Takes for a while what a client still sends, so that it reads the refusal instead of a broken connection: a layer of the
    /// usual size as a whole, from a fast network.
    async fn drain(&mut self) {
        const LIMIT: usize = 256 << 20;
        let taking = async {
            let mut taken = 0;
            while taken < LIMIT && !self.body.is_end_stream() {
                match self.body.frame().await {
                    Some(Ok(frame)) => taken += frame.data_ref().map_or(0, bytes::Bytes::len),
                    _ => return,
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(5), taking).await);
    }
}

/// What a request takes.
fn needed(method: &Method, route: &Route) -> Action {
    match (method.as_str(), route) {
        ("GET" | "HEAD", Route::Upload(..)) => Action::Push,
        ("GET" | "HEAD", _) => Action::Pull,
        ("DELETE", Route::Manifest(..) | Route::Blob(..)) => Action::Delete,
        _ => Action::Push,
    }
}

/// The methods that a route has.
fn methods(route: &Route) -> &'static str {
    match route {
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        Route::Token => "GET, POST",
        _ => "GET, HEAD",
    }
}

/// An answer in JSON.
pub(crate) fn json(text: String) -> Answer {
    let mut answer = Response::new(Body::from(text));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Whether a text may stand in a realm: a name or an address, and perhaps a port.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.len() <= 300 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
