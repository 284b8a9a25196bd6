//! A file at an address that a user named: no registry, no credentials but those in the address.
//!
//! Redirects are followed, but not to metadata services: the user may name one, a server's answer may not. A task of the runtime
//! reads ahead, the reading thread takes from it. A transfer that breaks is not taken up again: whoever asks may begin anew.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED};
use http::{Method, StatusCode};
use reqwest::Url;
use sampan_base::Cancel;

use crate::blob::{Pump, pump};
use crate::exchange::{self, Answer, Call, REDIRECTS};
use crate::state::State;
use crate::{TransferError, client};

/// Longest address.
const LONGEST_URL: usize = 8 << 10;
/// Longest header value that is kept.
const LONGEST_HEADER: usize = 1 << 10;

/// What is wanted from an address.
#[derive(Debug, Clone, Default)]
pub struct FetchRequest {
    /// `http://…` or `https://…`; a name and a password in it are sent to its own host only.
    pub url: String,
    /// Most bytes that are taken.
    pub limit: u64,
    /// The tag of what is here already; the answer may then be that nothing changed.
    pub etag: Option<String>,
    /// Whether the caller checks the content by a digest of its own, so that a redirect may lead from TLS to no TLS.
    pub checked: bool,
}

/// A file that is being fetched; reading fails with an [`io::Error`] whose inner error is a [`TransferError`].
#[derive(Debug)]
pub struct Fetched {
    /// Nothing changed since the tag of the request; there is no content.
    pub not_modified: bool,
    /// The tag of this content.
    pub etag: Option<String>,
    /// When it changed, seconds since the epoch.
    pub last_modified: Option<i64>,
    /// What the server says that it is, without parameters, lower case.
    pub media_type: String,
    /// How long it is, where the server says so.
    pub length: Option<u64>,
    limit: u64,
    received: u64,
    piece: Bytes,
    pump: Option<Pump>,
    state: Arc<State>,
    cancel: Cancel,
}

/// Opens an address.
pub(crate) fn open(state: &Arc<State>, request: &FetchRequest, cancel: &Cancel) -> Result<Fetched, TransferError> {
    let answer = client::block(state, cancel, ask(state, request))?;
    let not_modified = answer.status() == StatusCode::NOT_MODIFIED;
    let text = |name: &HeaderName| {
        let value = answer.header(name).filter(|value| value.len() <= LONGEST_HEADER)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let length = text(&CONTENT_LENGTH).and_then(|text| text.parse().ok());
    if !not_modified && length.is_some_and(|length: u64| length > request.limit) {
        return Err(TransferError::TooLarge { what: "file", limit: request.limit });
    }
    let kind = text(&CONTENT_TYPE).unwrap_or_default();
    Ok(Fetched {
        not_modified,
        etag: text(&ETAG),
        last_modified: text(&LAST_MODIFIED).and_then(|text| moment(&text)),
        media_type: kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
        length,
        limit: request.limit,
        received: 0,
        piece: Bytes::new(),
        pump: (!not_modified).then(|| pump(state, answer)),
        state: Arc::clone(state),
        cancel: cancel.clone(),
    })
}

/// An HTTP date as seconds since the epoch.
fn moment(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
}

fn parse(text: &str) -> Result<Url, TransferError> {
    let invalid = |problem: &str| {
        let shown: String = sampan_base::sanitize(text).chars().take(200).collect();
        TransferError::Invalid(format!("invalid address {shown}: {problem}"))
    };
    if text.len() > LONGEST_URL {
        return Err(invalid("it is too long"));
    }
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(invalid("only http and https are fetched")),
    }
}

async fn ask(state: &State, request: &FetchRequest) -> Result<Answer, TransferError> {
    let own = parse(&request.url)?;
    let http = state.plain(own.host_str().unwrap_or_default())?;
    let mut call = Call { lenient: request.checked, ..Call::new(Method::GET, own.clone()) };
    // The content as it is stored there; whoever wants it packed names a packed file.
    call = call.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(tag) = request.etag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok()) {
        call = call.header(IF_NONE_MATCH, tag);
    }
    let timing = &state.config.timing;
    let mut tries = 0;
    loop {
        tries += 1;
        let (error, answer) = match follow(state, &http, &call, &own).await {
            Ok(answer) if answer.status() == StatusCode::NOT_MODIFIED && request.etag.is_some() => return Ok(answer),
            Ok(answer) if answer.status().is_success() => return Ok(answer),
            Ok(answer) => {
                let error = TransferError::Unwelcome { url: exchange::shown(&own), status: answer.status().as_u16() };
                if !exchange::is_passing(answer.status()) {
                    return Err(error);
                }
                (error, Some(answer))
            }
            Err(failed) if failed.permanent => return Err(failed.error),
            Err(failed) => (failed.error, None),
        };
        let Some(pause) = exchange::pause(timing, tries, answer.as_ref()) else { return Err(error) };
        tracing::debug!(%error, "asking again");
        tokio::time::sleep(pause).await;
    }
}

/// Sends the request, to where the answers lead.
async fn follow(state: &State, http: &reqwest::Client, call: &Call, own: &Url) -> Result<Answer, exchange::Failed> {
    let timing = &state.config.timing;
    let mut url = own.clone();
    for _ in 0..=REDIRECTS {
        let answer = exchange::once(http, call, &url, None, reqwest::Body::default(), Some(timing.stall), timing).await?;
        match exchange::redirect(call, &url, &answer, own, false)? {
            Some(target) => url = target,
            None => return Ok(answer),
        }
    }
    let cause = format!("stopped after {REDIRECTS} redirects");
    Err(TransferError::Transport { method: call.label.to_owned(), url: exchange::shown(own), cause }.into())
}

impl Fetched {
    /// Waits for the next piece; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        self.cancel.check()?;
        let Some(pump) = &mut self.pump else { return Ok(None) };
        let Some(piece) = pump.next(&self.state, &self.cancel).transpose()? else {
            return match self.length {
                Some(length) if length != self.received => Err(TransferError::Malformed {
                    host: "the server".to_owned(),
                    problem: format!("{} bytes of {length} came", self.received),
                }),
                _ => Ok(None),
            };
        };
        self.received += piece.len() as u64;
        if self.received > self.limit {
            return Err(TransferError::TooLarge { what: "file", limit: self.limit });
        }
        Ok(Some(piece))
    }
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !buffer.is_empty() {
            match self.next() {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => {
                    self.pump = None;
                    return Ok(0);
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(moment("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        for bad in ["", "yesterday", "2015-10-21"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_web_addresses_are_taken() {
        assert!(parse("http://h/x").is_ok() && parse("https://u:p@h:1/x?y#z").is_ok());
        let long = format!("http://h/{}", "x".repeat(LONGEST_URL));
        for bad in ["", "h/x", "ftp://h/x", "file:///etc/passwd", "http://", "http://[::1", &long] {
            assert!(matches!(parse(bad), Err(TransferError::Invalid(_))), "{bad}");
        }
    }
}
