//! One request: who asks, where it leads, what is answered. HTTP in, HTTP out; what is kept is the store's matter.

mod blobs;
mod manifests;
mod tokens;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::auth::{Access, AuthError, Identity, Scope};
use crate::error::{Code, Outcome, Refusal};
use crate::route::{self, NoRoute, Route};
use crate::{CATALOG, Registry};

/// The body of an answer.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;
/// An answer.
pub(crate) type Reply = Response<Body>;

/// Longest `Authorization` header that is looked at.
const MAX_AUTHORIZATION: usize = 64 << 10;

/// A request with all that is known of it.
pub(crate) struct Call {
    pub(crate) registry: Arc<Registry>,
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
    pub(crate) identity: Identity,
    pub(crate) peer: SocketAddr,
}

/// What the access log wants to know beside the answer.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) identity: String,
    pub(crate) route: &'static str,
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An answer without a body.
pub(crate) fn bare(status: StatusCode) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// A header's value; what cannot be one (never of ours) is left empty.
pub(crate) fn value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or(HeaderValue::from_static(""))
}

/// Answers a request.
pub(crate) async fn handle(registry: Arc<Registry>, peer: SocketAddr, request: Request<Incoming>) -> (Reply, Seen) {
    let route = route::parse(request.uri().path());
    let kind = route.as_ref().map_or("none", kind);
    let is_head = request.method() == Method::HEAD;
    let identity = identify(&registry, request.headers(), peer).await;
    let name = identity.as_ref().map_or_else(|_| String::new(), |identity| identity.name.clone());
    let challenge_host = host(&request);
    let outcome = match (route, identity) {
        (Err(reason), _) => Err(no_route(reason)),
        (Ok(Route::Health), _) => Ok(Response::new(full("ok\n"))),
        (Ok(route), Err(error)) => Err(refused(&registry, error, &route, request.method(), &challenge_host)),
        (Ok(route), Ok(identity)) => {
            let (head, body) = request.into_parts();
            dispatch(Call { registry, head, body, identity, peer }, route, &challenge_host).await
        }
    };
    let mut reply = outcome.unwrap_or_else(|refusal| refuse(&refusal, is_head));
    reply.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    (reply, Seen { identity: name, route: kind })
}

fn kind(route: &Route) -> &'static str {
    match route {
        Route::Root => "root",
        Route::Catalog => "catalog",
        Route::Tags { .. } => "tags",
        Route::Manifest { .. } => "manifest",
        Route::Blob { .. } => "blob",
        Route::Uploads { .. } | Route::Upload { .. } => "upload",
        Route::Referrers { .. } => "referrers",
        Route::Token => "token",
        Route::Health => "health",
        Route::Metrics => "metrics",
    }
}

fn no_route(reason: NoRoute) -> Refusal {
    match reason {
        NoRoute::Unknown => Refusal::new(Code::Unsupported).status(StatusCode::NOT_FOUND).message("no such path"),
        NoRoute::Name => Refusal::new(Code::NameInvalid),
        NoRoute::Tag => Refusal::new(Code::ManifestInvalid).message("invalid tag").status(StatusCode::BAD_REQUEST),
        NoRoute::Digest => Refusal::new(Code::DigestInvalid).message("invalid digest"),
    }
}

fn refuse(refusal: &Refusal, is_head: bool) -> Reply {
    let body = refusal.body();
    let mut reply = Response::new(full(if is_head { Vec::new() } else { body }));
    *reply.status_mut() = refusal.status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, text) in &refusal.headers {
        reply.headers_mut().append(name.clone(), value(text));
    }
    reply
}

/// The host that the client asked for, as it knows us by.
fn host(request: &Request<Incoming>) -> String {
    let given = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = given.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or("localhost");
    let is_clean = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    if host.len() <= 300 && host.bytes().all(is_clean) { host.to_owned() } else { "localhost".to_owned() }
}

/// Who sent the headers.
async fn identify(registry: &Arc<Registry>, headers: &HeaderMap, peer: SocketAddr) -> Result<Identity, AuthError> {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return Ok(registry.auth.nobody()) };
    if given.len() > MAX_AUTHORIZATION {
        return Err(AuthError::Wrong);
    }
    let text = given.to_str().map_err(|_| AuthError::Wrong)?;
    let (scheme, rest) = text.split_once(' ').ok_or(AuthError::Wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return registry.auth.token(&registry.store.meta, rest.trim());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(AuthError::Wrong);
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).map_err(|_| AuthError::Wrong)?;
    let decoded = String::from_utf8(decoded).map_err(|_| AuthError::Wrong)?;
    let (name, password) = decoded.split_once(':').ok_or(AuthError::Wrong)?;
    let user = registry.auth.password(&registry.store, name, password, peer.ip()).await?;
    Ok(Identity { name: user.name, role: Some(user.role), scopes: None })
}

/// The challenge that tells a client where to get a token for what it wanted.
fn challenge(registry: &Registry, host: &str, wanted: Option<(Access, &str)>, error: Option<&str>) -> String {
    let scheme = if registry.is_tls { "https" } else { "http" };
    let mut text = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{host}\"");
    if let Some((access, repo)) = wanted {
        text.push_str(&format!(",scope=\"{}\"", Scope::challenge(access, repo)));
    }
    if let Some(error) = error {
        text.push_str(&format!(",error=\"{error}\""));
    }
    text
}

fn refused(registry: &Registry, error: AuthError, route: &Route, method: &Method, host: &str) -> Refusal {
    match error {
        AuthError::TooMany => {
            Refusal::new(Code::TooManyRequests).message("too many failed logins: wait a minute").header(header::RETRY_AFTER, "60")
        }
        AuthError::Internal => Refusal::internal("check who asks", &"the users cannot be read"),
        AuthError::Wrong => {
            let refusal = Refusal::new(Code::Unauthorized).message("incorrect username or password");
            let wanted = needs(route, method);
            let wanted = wanted.as_ref().map(|(access, repo)| (*access, repo.as_str()));
            refusal.header(header::WWW_AUTHENTICATE, challenge(registry, host, wanted, Some("invalid_token")))
        }
    }
}

/// What a request needs to be allowed.
fn needs(route: &Route, method: &Method) -> Option<(Access, String)> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let change = if *method == Method::DELETE { Access::Delete } else { Access::Push };
    match route {
        Route::Catalog => Some((Access::Pull, CATALOG.to_owned())),
        Route::Tags { name } | Route::Referrers { name, .. } => Some((Access::Pull, name.clone())),
        Route::Manifest { name, .. } | Route::Blob { name, .. } => Some((if is_read { Access::Pull } else { change }, name.clone())),
        // Whoever uploads may look at the upload and give it up.
        Route::Uploads { name } | Route::Upload { name, .. } => Some((Access::Push, name.clone())),
        Route::Root | Route::Token | Route::Health | Route::Metrics => None,
    }
}

/// Lets a request pass, or says why not.
fn authorize(call: &Call, route: &Route, host: &str) -> Outcome<()> {
    let Some((access, repo)) = needs(route, &call.head.method) else { return Ok(()) };
    if call.identity.may(access, &repo) {
        return Ok(());
    }
    let is_known = !call.identity.name.is_empty();
    if is_known && !call.identity.needs_wider_token(access) {
        // Whether the repository is there makes no difference.
        return Err(Refusal::new(Code::Denied));
    }
    let error = call.identity.scopes.is_some().then_some("insufficient_scope");
    let text = challenge(&call.registry, host, Some((access, &repo)), error);
    Err(Refusal::new(Code::Unauthorized).header(header::WWW_AUTHENTICATE, text))
}

async fn dispatch(call: Call, route: Route, host: &str) -> Outcome<Reply> {
    authorize(&call, &route, host)?;
    let method = call.head.method.clone();
    match (route, method.as_str()) {
        (Route::Root, "GET" | "HEAD") => root(&call, host),
        (Route::Catalog, "GET" | "HEAD") => manifests::catalog(call).await,
        (Route::Tags { name }, "GET" | "HEAD") => manifests::tags(call, name).await,
        (Route::Manifest { name, target }, "GET" | "HEAD") => manifests::get(&call, &name, &target).await,
        (Route::Manifest { name, target }, "PUT") => manifests::put(call, name, target).await,
        (Route::Manifest { name, target }, "DELETE") => manifests::delete(call, name, target).await,
        (Route::Referrers { name, digest }, "GET" | "HEAD") => manifests::referrers(call, name, digest).await,
        (Route::Blob { name, digest }, "GET" | "HEAD") => blobs::get(call, name, digest).await,
        (Route::Blob { name, digest }, "DELETE") => blobs::delete(call, name, digest).await,
        (Route::Uploads { name }, "POST") => uploads::begin(call, name).await,
        (Route::Upload { name, id }, "PATCH") => uploads::append(call, name, id).await,
        (Route::Upload { name, id }, "PUT") => uploads::finish(call, name, id).await,
        (Route::Upload { name, id }, "GET" | "HEAD") => uploads::status(call, name, id).await,
        (Route::Upload { name, id }, "DELETE") => uploads::cancel(call, name, id).await,
        (Route::Token, "GET" | "POST") => tokens::token(call, host).await,
        (Route::Metrics, "GET") => metrics(call).await,
        _ => Err(Refusal::new(Code::Unsupported)),
    }
}

/// `/v2/`: clients learn here how to log in, so nobody in particular is asked who they are, unless it makes no difference.
fn root(call: &Call, host: &str) -> Outcome<Reply> {
    let is_open = call.registry.is_open.load(Ordering::Relaxed);
    if call.identity.name.is_empty() && call.identity.scopes.is_none() && !is_open {
        let text = challenge(&call.registry, host, None, None);
        return Err(Refusal::new(Code::Unauthorized).header(header::WWW_AUTHENTICATE, text));
    }
    Ok(document("{}".to_owned()))
}

pub(crate) fn document(text: String) -> Reply {
    let mut reply = Response::new(full(text));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

async fn metrics(call: Call) -> Outcome<Reply> {
    let is_admin = call.identity.role == Some(crate::Role::Admin) && !call.identity.name.is_empty();
    if !call.peer.ip().is_loopback() && !is_admin {
        return Err(Refusal::new(Code::Denied).message("only from this machine, or for an admin"));
    }
    let registry = Arc::clone(&call.registry);
    let (blobs, bytes) = blocking(move || registry.store.blob_totals()).await??;
    let mut reply = Response::new(full(call.registry.metrics.page(blobs, bytes, call.registry.store.uploads.count())));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(reply)
}

/// Does what waits for the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::internal("do the work", &error))
}

/// The values of a query's parameter, decoded.
pub(crate) fn query<'a>(call: &'a Call, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let text = call.head.uri.query().unwrap_or_default();
    pairs(text).filter(move |(key, _)| key == name).map(|(_, value)| value)
}

/// The pairs of a query or a form.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// Undoes percent-encoding; what is no UTF-8 is replaced.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let found: Vec<_> = pairs("scope=repository%3Aa%3Apull&scope=x+y&n=%zz&&k").collect();
        let wanted = [("scope", "repository:a:pull"), ("scope", "x y"), ("n", "%zz"), ("k", "")];
        assert_eq!(found, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
