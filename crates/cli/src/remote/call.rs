//! One request and what comes back.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sampan_wire::Json;

use super::upload::Body;
use super::{Client, Hijacked};
use crate::error::{CliError, Outcome};

/// Largest document that is taken from an engine.
const LARGEST: usize = 256 << 20;

/// A request that is being put together.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Body,
    versioned: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(client: &'a Client, method: Method, path: String) -> Self {
        Self { client, method, path, query: String::new(), headers: Vec::new(), body: Body::empty(), versioned: true }
    }

    /// Adds a parameter; empty values too.
    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(&format!("{key}={}", escape(value)));
        self
    }

    /// Adds a parameter unless it is empty.
    pub(crate) fn query_some(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.query(key, value) }
    }

    /// Adds `key=1` where it holds.
    pub(crate) fn query_if(self, key: &str, truth: bool) -> Self {
        if truth { self.query(key, "1") } else { self }
    }

    /// Adds filters.
    pub(crate) fn filters(self, filters: &[String]) -> Self {
        let json = filters_json(filters);
        if json == "{}" { self } else { self.query("filters", &json) }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A JSON body.
    pub(crate) fn body(mut self, json: &Json) -> Self {
        self.body = Body::Whole(Some(Bytes::from(json.print())));
        self.header("Content-Type", "application/json")
    }

    /// A body that is written by a thread.
    pub(crate) fn stream(mut self, body: Body, kind: &str) -> Self {
        self.body = body;
        self.header("Content-Type", kind)
    }

    /// Sends it; an error of the engine becomes ours.
    pub(crate) async fn send(self) -> Outcome<Response<Incoming>> {
        self.exchange().await.map(|(response, _)| response)
    }

    /// Sends it and reads JSON.
    pub(crate) async fn json(self) -> Outcome<Json> {
        let client = self.client;
        let (response, sender) = self.exchange().await?;
        let bytes = read_all(response.into_body()).await?;
        *client.idle.borrow_mut() = sender;
        Json::parse(&bytes).map_err(|error| CliError::new(format!("the engine's answer is no JSON: {error}")))
    }

    /// Sends it; the answer does not matter.
    pub(crate) async fn done(self) -> Outcome<()> {
        let client = self.client;
        let (response, sender) = self.exchange().await?;
        read_all(response.into_body()).await?;
        *client.idle.borrow_mut() = sender;
        Ok(())
    }

    /// Sends it and takes the connection over for raw streams.
    pub(crate) async fn hijack(self) -> Outcome<Hijacked> {
        let call = self.header("Connection", "Upgrade").header("Upgrade", "tcp");
        let (response, _) = call.exchange().await?;
        Hijacked::take(response).await
    }

    async fn exchange(self) -> Outcome<(Response<Incoming>, Option<SendRequest<Body>>)> {
        let api = if self.versioned { format!("/v{}", self.client.server().await?.api) } else { String::new() };
        let target = format!("{api}{}{}", self.path, self.query);
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (response, sender) = self.client.exchange(self.method, &target, &headers, self.body).await?;
        let status = response.status();
        if status.is_success() || status.as_u16() == 101 || status.as_u16() == 304 {
            return Ok((response, sender));
        }
        Err(engine_error(response, &target).await)
    }
}

/// What an engine said was wrong.
async fn engine_error(response: Response<Incoming>, target: &str) -> CliError {
    let status = response.status();
    let bytes = read_all(response.into_body()).await.unwrap_or_default();
    let message = Json::parse(&bytes).map(|json| json.text("message").to_owned()).unwrap_or_default();
    let message = match (message.is_empty(), bytes.is_empty()) {
        (false, _) => message,
        (true, false) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        (true, true) => {
            format!("request returned {status} for API route and version {target}, check if the server supports the requested API version")
        }
    };
    CliError::engine(status.as_u16(), message.trim())
}

impl Client {
    /// Sends a request on an idle connection or a new one.
    pub(super) async fn exchange(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Outcome<(Response<Incoming>, Option<SendRequest<Body>>)> {
        let idle = self.idle.borrow_mut().take();
        let mut sender = match idle {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.connect(&method, target).await?,
            },
            None => self.connect(&method, target).await?,
        };
        let mut request = Request::builder().method(method.clone()).uri(target).header("Host", "docker").header("User-Agent", agent());
        for (name, value) in self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|error| CliError::new(format!("a request cannot be made of {target}: {error}")))?;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, Some(sender))),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(CliError::new(format!("error during connect: {method} \"http://{}{target}\": {error}{cause}", self.endpoint())))
            }
        }
    }

    async fn connect(&self, method: &Method, target: &str) -> Outcome<SendRequest<Body>> {
        let connection = match self.endpoint().dial().await {
            Ok(connection) => connection,
            Err(error) => {
                let absent = matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused);
                let Some(start) = self.starter.filter(|_| absent) else { return Err(self.cannot_connect(&error, method, target)) };
                start()?;
                self.endpoint().dial().await.map_err(|error| self.cannot_connect(&error, method, target))?
            }
        };
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(connection))
            .await
            .map_err(|error| CliError::new(format!("error during connect: {error}")))?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

fn agent() -> String {
    format!("Docker-Client/{} (linux)", env!("CARGO_PKG_VERSION"))
}

/// Reads a body whole, up to a limit.
pub(crate) async fn read_all(mut body: Incoming) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if out.len() + data.len() > LARGEST {
                return Err(CliError::new("the engine's answer is too long"));
            }
            out.extend_from_slice(&data);
        }
    }
    Ok(out)
}

/// `{"label":{"a=b":true}}`, sorted by name.
fn filters_json(filters: &[String]) -> String {
    let mut map = std::collections::BTreeMap::<&str, std::collections::BTreeMap<&str, bool>>::new();
    for filter in filters.iter().filter(|filter| !filter.is_empty()) {
        let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
        map.entry(name).or_default().insert(value, true);
    }
    serde_json::to_string(&map).unwrap_or_default()
}

/// Escapes for a query or a path segment.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_sets() {
        let filters = ["label=a=b", "label=c", "status=exited"].map(str::to_owned);
        assert_eq!(filters_json(&filters), r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#);
        assert_eq!(filters_json(&[]), "{}");
        assert_eq!(escape("a b/ä"), "a%20b%2F%C3%A4");
    }
}
