//! Why a request got no answer, in the words of Go's libraries, as users and their scripts know them from Docker.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::resolve::{ForbiddenAddress, UnknownHost};

/// A failed connection or a broken reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Why, for people.
    pub(crate) text: String,
    /// Whether another try will fail the same way.
    pub(crate) permanent: bool,
}

impl Cause {
    fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), permanent: false }
    }

    fn permanent(text: impl Into<String>) -> Self {
        Self { text: text.into(), permanent: true }
    }

    /// Nothing was heard for too long.
    pub(crate) fn silence() -> Self {
        Self::passing("net/http: request canceled (Client.Timeout exceeded while awaiting headers)")
    }
}

/// The same in the middle of a body.
pub(crate) fn of_body(error: &reqwest::Error, host: &str) -> String {
    let text = of(error, host).text;
    if text == "EOF" { "unexpected EOF".to_owned() } else { text }
}

/// Finds the cause of an error of the HTTP client.
pub(crate) fn of(error: &reqwest::Error, host: &str) -> Cause {
    match in_chain(error, host) {
        Ok(cause) => cause,
        Err(_) if error.is_timeout() && error.is_connect() => {
            Cause::passing("net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)")
        }
        Err(_) if error.is_timeout() => Cause::silence(),
        Err(last) => Cause::passing(last),
    }
}

/// Finds the cause among an error and its sources; else gives the text of the last one.
fn in_chain(error: &(dyn Error + 'static), host: &str) -> Result<Cause, String> {
    let mut address = None;
    let mut last = String::new();
    let mut vague = None;
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        address = address.or_else(|| connect_address(error));
        if let Some(cause) = known(error, address.as_deref(), host) {
            return Ok(cause);
        }
        vague = vague.or_else(|| of_cut_connection(error));
        last = error.to_string();
        next = match error.downcast_ref::<io::Error>() {
            // The standard library hides the inner error itself and shows only the inner error's source.
            Some(outer) => outer.get_ref().map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source()),
            None => error.source(),
        };
    }
    vague.ok_or(last)
}

fn known(error: &(dyn Error + 'static), address: Option<&str>, host: &str) -> Option<Cause> {
    if let Some(unknown) = error.downcast_ref::<UnknownHost>() {
        let text = format!("dial tcp: {unknown}");
        return Some(if unknown.temporary { Cause::passing(text) } else { Cause::permanent(text) });
    }
    if let Some(forbidden) = error.downcast_ref::<ForbiddenAddress>() {
        return Some(Cause::permanent(forbidden.to_string()));
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(of_tls(error, host));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error, address);
    }
    if let Some(error) = error.downcast_ref::<hyper_error::Error>() {
        return of_hyper(error);
    }
    None
}

/// The client's HTTP library, by a name that says what it is.
mod hyper_error {
    pub(super) use hyper::Error;
}

fn of_hyper(error: &hyper_error::Error) -> Option<Cause> {
    error.is_parse().then(|| Cause::permanent("net/http: HTTP/1.x transport connection broken: malformed HTTP response"))
}

/// A connection that ended before the request was sent, or before its answer came. What it ended of is told by the error's source
/// where it has one, and else perhaps by the next connection.
fn of_cut_connection(error: &(dyn Error + 'static)) -> Option<Cause> {
    let error = error.downcast_ref::<hyper_error::Error>()?;
    (error.is_incomplete_message() || error.is_canceled() || error.is_closed()).then(|| Cause::passing("EOF"))
}

fn of_io(error: &io::Error, address: Option<&str>) -> Option<Cause> {
    use io::ErrorKind as Kind;
    let dialled = |words: &str| match address {
        Some(address) => format!("dial tcp {address}: {words}"),
        None => words.to_owned(),
    };
    Some(match error.kind() {
        Kind::ConnectionRefused => Cause::permanent(dialled("connect: connection refused")),
        Kind::HostUnreachable => Cause::passing(dialled("connect: no route to host")),
        Kind::NetworkUnreachable => Cause::passing(dialled("connect: network is unreachable")),
        Kind::PermissionDenied => Cause::permanent(dialled("connect: permission denied")),
        Kind::TimedOut if address.is_some() => Cause::passing(dialled("i/o timeout")),
        Kind::ConnectionReset => Cause::passing("read: connection reset by peer"),
        Kind::BrokenPipe => Cause::passing("write: broken pipe"),
        Kind::UnexpectedEof => Cause::passing("EOF"),
        _ => return None,
    })
}

fn of_tls(error: &rustls::Error, host: &str) -> Cause {
    let untrusted = |words: String| Cause::permanent(format!("tls: failed to verify certificate: x509: {words}"));
    match error {
        rustls::Error::InvalidCertificate(error) => untrusted(of_certificate(error, host)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Cause::permanent("http: server gave HTTP response to HTTPS client")
        }
        rustls::Error::AlertReceived(alert) => Cause::permanent(format!("remote error: tls: {}", of_alert(*alert))),
        rustls::Error::PeerIncompatible(_) => Cause::permanent("tls: server selected unsupported protocol version or cipher suite"),
        other => Cause::permanent(format!("tls: {other}")),
    }
}

fn of_certificate(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::Expired | CertificateError::NotValidYet => "certificate has expired or is not yet valid".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("certificate has expired or is not yet valid: current time {} is after {}", moment(*time), moment(*not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("certificate has expired or is not yet valid: current time {} is before {}", moment(*time), moment(*not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => of_names(presented, host),
        CertificateError::NotValidForName => format!("certificate is not valid for any names, but wanted to match {host}"),
        CertificateError::Revoked => "certificate has been revoked".to_owned(),
        CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_) => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        other => format!("{other}"),
    }
}

/// `presented` are texts such as `DnsName("a")` and `IpAddress(127.0.0.1)`.
fn of_names(presented: &[String], host: &str) -> String {
    let names: Vec<_> = presented
        .iter()
        .take(100)
        .map(|name| name.split_once('(').map_or(name.as_str(), |(_, inner)| inner).trim_end_matches(')').trim_matches('"'))
        .map(sampan_base::sanitize)
        .collect();
    if host.parse::<std::net::IpAddr>().is_ok() && presented.iter().all(|name| !name.starts_with("IpAddress")) {
        return format!("cannot validate certificate for {host} because it doesn't contain any IP SANs");
    }
    if names.is_empty() {
        return format!("certificate is not valid for any names, but wanted to match {host}");
    }
    format!("certificate is valid for {}, not {host}", names.join(", "))
}

fn moment(time: rustls_pki_types::UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        AlertDescription::CertificateRequired => "certificate required".to_owned(),
        AlertDescription::CertificateExpired => "expired certificate".to_owned(),
        AlertDescription::CertificateUnknown => "unknown certificate".to_owned(),
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::InternalError => "internal error".to_owned(),
        AlertDescription::UnrecognisedName => "unrecognized name".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The connector tells only its `Debug` which address it dialled: `ConnectError("tcp connect error", 127.0.0.1:1, …)`.
fn connect_address(error: &(dyn Error + 'static)) -> Option<String> {
    let text = format!("{error:?}");
    let rest = text.strip_prefix("ConnectError(\"tcp connect error\", ")?;
    let address = rest.split(", ").next()?;
    address.parse::<std::net::SocketAddr>().ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// A connection on which an alert has come.
    struct Alerted;

    impl hyper::rt::Read for Alerted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: hyper::rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
            )))
        }
    }

    impl hyper::rt::Write for Alerted {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn an_alert_that_comes_before_the_request_is_sent_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let refused = runtime.block_on(async {
            let (mut requests, connection) = hyper::client::conn::http1::handshake(Alerted).await.unwrap();
            let request = http::Request::new(http_body_util::Empty::<bytes::Bytes>::new());
            let answer = requests.send_request(request);
            // Nobody waits for the connection's own end.
            drop(connection.await);
            answer.await.unwrap_err()
        });
        assert!(refused.is_canceled(), "{refused:?}");
        assert_eq!(in_chain(&refused, "reg.test"), Ok(Cause::permanent("remote error: tls: certificate required")));
    }
}
