//! One request and its answer: pauses and further tries, redirects, and the errors on the way. Knows no registry's rules and no
//! credentials beyond a header that it is handed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use reqwest::Url;

use crate::challenge::{self, Challenge};
use crate::config::Timing;
use crate::{TransferError, address, cause, headers, refusal};

/// A short body may take so many stall times in all.
const PATIENCE: u32 = 5;
/// How many redirects are followed.
pub(crate) const REDIRECTS: usize = 10;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The method as errors name it: Docker asks by HEAD for what we ask by GET.
    pub(crate) label: &'static str,
    /// Whether a redirect from TLS to no TLS is followed: the content is checked by its digest.
    pub(crate) lenient: bool,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        let label = match method {
            Method::HEAD => "Head",
            Method::POST => "Post",
            Method::PUT => "Put",
            Method::PATCH => "Patch",
            Method::DELETE => "Delete",
            _ => "Get",
        };
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), label, lenient: false }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// `Get "https://…": `, as Go begins the errors of a request.
    pub(crate) fn context(&self) -> String {
        format!("{} \"{}\": ", self.label, shown(&self.url))
    }
}

/// An address without credentials, and without the query where it may be a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let secret = |(name, _): (std::borrow::Cow<'_, str>, _)| {
        let name = name.to_ascii_lowercase();
        ["signature", "token", "credential", "sig", "key", "password", "state"].iter().any(|word| name.contains(word))
    };
    if url.query_pairs().any(secret) {
        url.set_query(Some("..."));
    }
    sampan_base::sanitize(url.as_str())
}

/// A body that does not come.
fn silent(url: String) -> TransferError {
    let cause = "net/http: request canceled (Client.Timeout or context cancellation while reading body)".to_owned();
    TransferError::Transport { method: "Get".to_owned(), url, cause }
}

/// A failure, and whether it is worth another try.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: TransferError,
    pub(crate) permanent: bool,
}

impl From<TransferError> for Failed {
    fn from(error: TransferError) -> Self {
        Self { error, permanent: true }
    }
}

/// An answer; its body is not read yet.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: reqwest::Response,
    /// Who answered, after all redirects.
    pub(crate) url: Url,
    stall: Duration,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn challenges(&self) -> Vec<Challenge> {
        challenge::parse(self.response.headers().get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes))
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, TransferError> {
        match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                let cause = cause::of_body(&error, self.url.host_str().unwrap_or_default());
                Err(TransferError::Transport { method: "Get".to_owned(), url: shown(&self.url), cause })
            }
            Err(_) => Err(silent(shown(&self.url))),
        }
    }

    /// The whole body, if it is not larger than a limit and does not trickle.
    pub(crate) async fn read(mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, TransferError> {
        let too_large = || TransferError::TooLarge { what, limit };
        if self.response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let url = shown(&self.url);
        let patience = self.stall * PATIENCE;
        let reading = async {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                if (body.len() + chunk.len()) as u64 > limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| Err(silent(url)))
    }

    /// Reads away a short body, so that the connection can be used again.
    pub(crate) async fn drain(self) {
        let _body = self.beginning(16 << 10).await;
    }

    /// As much of a body as comes soon, up to a limit.
    async fn beginning(mut self, limit: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let patience = self.stall;
        let reading = async {
            while let Ok(Some(chunk)) = self.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() >= limit {
                    break;
                }
            }
        };
        let _late = tokio::time::timeout(patience, reading).await;
        body.truncate(limit);
        body
    }

    /// What the answer refuses, with as much of its body as is read of refusals.
    pub(crate) async fn refusal(self) -> TransferError {
        let status = self.status().as_u16();
        let kind = self.header(&CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = matches!(kind.as_str(), "application/json" | "application/vnd.api+json");
        let challenges = self.challenges();
        let body = self.beginning(refusal::LIMIT).await;
        refusal::read(status, is_json, &challenges, &body)
    }

    /// Where the answer points to, resolved against its own address.
    pub(crate) fn location(&self) -> Option<Result<Url, TransferError>> {
        let text = self.header(&LOCATION)?;
        Some(self.url.join(text).map_err(|error| TransferError::Malformed {
            host: self.url.host_str().unwrap_or_default().to_owned(),
            problem: format!("Location {:?}: {error}", sampan_base::sanitize(text)),
        }))
    }

    /// How long the answer asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        headers::retry_after(self.response.headers().get(RETRY_AFTER)?.as_bytes(), jiff::Timestamp::now())
    }
}

/// Sends one request to one address, and waits for the head of the answer.
pub(crate) async fn once(
    http: &reqwest::Client,
    call: &Call,
    url: &Url,
    authorization: Option<&HeaderValue>,
    body: reqwest::Body,
    stall: Option<Duration>,
    timing: &Timing,
) -> Result<Answer, Failed> {
    let mut request = http.request(call.method.clone(), url.clone()).headers(call.headers.clone()).body(body);
    if let Some(value) = authorization {
        request = request.header(http::header::AUTHORIZATION, value.clone());
    }
    let sent = request.send();
    let result = match stall {
        Some(stall) => tokio::time::timeout(stall, sent).await.map_err(|_| cause::Cause::silence()),
        None => Ok(sent.await),
    };
    let cause = match result {
        Ok(Ok(response)) => return Ok(Answer { response, url: url.clone(), stall: timing.stall }),
        Ok(Err(error)) => cause::of(&error, url.host_str().unwrap_or_default()),
        Err(cause) => cause,
    };
    let error = TransferError::Transport { method: call.label.to_owned(), url: shown(url), cause: cause.text };
    Err(Failed { error, permanent: cause.permanent })
}

/// Whether an answer asks to try again.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The pause before the next try; `None` where there is none.
pub(crate) fn pause(timing: &Timing, tries: u32, answer: Option<&Answer>) -> Option<Duration> {
    (tries < timing.attempts.max(1)).then(|| any_pause(timing, tries, answer))
}

/// The same for the next try of a download.
pub(crate) fn download_pause(timing: &Timing, tries: u32) -> Option<Duration> {
    (tries < timing.download_attempts.max(1)).then(|| any_pause(timing, tries, None))
}

fn any_pause(timing: &Timing, tries: u32, answer: Option<&Answer>) -> Duration {
    let doubled = timing.pause.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    // Between three quarters and five quarters, so that many clients do not come back together.
    let mut random = [0_u8; 1];
    let jitter = if getrandom::fill(&mut random).is_ok() { f64::from(random[0]) / 510.0 } else { 0.25 };
    let own = doubled.min(timing.longest_pause).mul_f64(0.75 + jitter);
    let asked = answer.and_then(Answer::retry_after).unwrap_or_default();
    own.max(asked).min(timing.longest_pause)
}

/// Decides whether a redirect may be followed, and where it leads. Any userinfo in it is dropped.
pub(crate) fn redirect(call: &Call, from: &Url, answer: &Answer, own: &Url, insecure: bool) -> Result<Option<Url>, TransferError> {
    let status = answer.status().as_u16();
    let read_only = call.method == Method::GET || call.method == Method::HEAD;
    if !matches!((status, read_only), (301..=303, true) | (307 | 308, _)) {
        return Ok(None);
    }
    let Some(target) = answer.location() else { return Ok(None) };
    let mut target = target?;
    let _ = target.set_username("");
    let _ = target.set_password(None);
    let refuse = |reason| TransferError::Forbidden { context: call.context(), target: shown(&target), reason };
    if !matches!(target.scheme(), "https" | "http") {
        return Err(refuse("only http and https are followed"));
    }
    if from.scheme() == "https" && target.scheme() == "http" && !call.lenient && !insecure {
        return Err(refuse("it leads from https to http"));
    }
    check_target(&target, own).map_err(|reason| TransferError::Forbidden { context: call.context(), target: shown(&target), reason })?;
    Ok(Some(target))
}

/// Whether an address that a reply named may be asked: no metadata service, unless the registry itself lives there. Names are
/// checked when they are resolved.
pub(crate) fn check_target(target: &Url, own: &Url) -> Result<(), &'static str> {
    let host = target.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err("it names no host");
    }
    if own.host_str() == Some(host) {
        return Ok(());
    }
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    match plain.parse() {
        Ok(address) if address::is_metadata(address) => Err("the address is link-local or a metadata service's"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, wanted) in [
            ("https://u:p@h/v2/", "https://h/v2/"),
            ("https://h/x?n=1&last=a", "https://h/x?n=1&last=a"),
            ("https://h/x?X-Amz-Signature=s&a=b", "https://h/x?..."),
        ] {
            assert_eq!(shown(&Url::parse(url).unwrap()), wanted);
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let timing = Timing { longest_pause: Duration::from_secs(3), ..Timing::default() };
        let pauses: Vec<_> = (1..5).map(|tries| pause(&timing, tries, None).unwrap().as_secs_f64()).collect();
        for (pause, about) in pauses.iter().zip([0.5, 1.0, 2.0, 3.0]) {
            assert!((about * 0.74..=about * 1.26_f64).contains(pause), "{pauses:?}");
        }
        assert_eq!(pause(&timing, 5, None), None);
    }

    #[test]
    fn metadata_services_are_no_targets() {
        let own = Url::parse("https://169.254.1.1:5000/").unwrap();
        let check = |target: &str| check_target(&Url::parse(target).unwrap(), &own);
        assert!(check("https://169.254.1.1/x").is_ok() && check("https://h/x").is_ok());
        for bad in
            ["http://169.254.169.254/", "http://0xa9fea9fe/", "http://2852039166/", "http://[fe80::1]/", "http://[::ffff:a9fe:a9fe]/"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
