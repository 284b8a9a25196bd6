//! A login is proved by using it once.

use http::{Method, StatusCode};

use crate::exchange::{self, Call};
use crate::registry::Registry;
use crate::types::LoginAnswer;
use crate::{TransferError, refusal, token};

/// The names under which clients know Docker Hub.
pub(crate) fn domain_of(host: &str) -> &str {
    let name = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    let name = name.split('/').next().unwrap_or_default();
    match name {
        "" | "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io",
        other => other,
    }
}

/// Proves a login.
pub(crate) async fn prove(registry: &Registry) -> Result<LoginAnswer, TransferError> {
    let call = Call::new(Method::GET, registry.endpoint.url("/v2/")?);
    let mut identity_token = None;
    let header = match registry.challenge("bearer") {
        Some(challenge) if registry.login.ready().is_none() => {
            let token = registry.token(&challenge, &[], None, true).await;
            let token = token.map_err(|cause| TransferError::Token { context: call.context(), cause: Box::new(cause) })?;
            identity_token = token.refresh.map(|token| token.expose().clone());
            Some(token.header)
        }
        _ => match registry.login.ready() {
            Some(token) => token::bearer(token.expose()),
            None => token::basic(&registry.login),
        },
    };
    let timing = &registry.state.config.timing;
    let mut tries = 0;
    loop {
        tries += 1;
        let body = reqwest::Body::default();
        let sent = exchange::once(&registry.http, &call, &call.url, header.as_ref(), body, Some(timing.stall), timing).await;
        let answer = sent.map_err(|failed| failed.error)?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(LoginAnswer { status: "Login Succeeded".to_owned(), identity_token });
        }
        let pause = if exchange::is_passing(status) { exchange::pause(timing, tries, Some(&answer)) } else { None };
        let Some(pause) = pause else {
            let line = refusal::status_line(status.as_u16());
            return Err(TransferError::LoginFailed { url: exchange::shown(&call.url), status: line, code: status.as_u16() });
        };
        registry.waiting.rest(pause).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn docker_hub_has_many_names() {
        for (host, wanted) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("h:5000", "h:5000"),
            ("https://h:5000/v2/", "h:5000"),
        ] {
            assert_eq!(super::domain_of(host), wanted, "{host}");
        }
    }
}
