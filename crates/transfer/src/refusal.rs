//! The body of a refusal, turned into an error with the words that Docker's daemon makes of it. Pure.

use sampan_base::sanitize;
use sampan_oci::Reference;
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::{Refusal, TransferError};

/// How much of a refusal's body is read.
pub(crate) const LIMIT: usize = 64 << 10;

#[derive(Deserialize)]
struct Body {
    #[serde(default, alias = "Errors")]
    errors: Option<Vec<Entry>>,
    #[serde(default)]
    details: Option<String>,
}

/// Go reads names of fields whatever their case, and servers rely on it.
#[derive(Deserialize)]
struct Entry {
    #[serde(default, alias = "Code", alias = "CODE")]
    code: Option<String>,
    #[serde(default, alias = "Message", alias = "MESSAGE")]
    message: Option<String>,
}

/// The codes of the specification and of the original registry; others count as unknown.
const CODES: &[&str] = &[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "MANIFEST_UNVERIFIED",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNSUPPORTED",
];

/// Makes an error of a reply whose status is no success.
///
/// `is_json` says whether the reply called its body JSON, `reason` is the status line's text.
pub(crate) fn read(status: u16, is_json: bool, challenges: &[Challenge], body: &[u8]) -> TransferError {
    if !(400..500).contains(&status) {
        return TransferError::Status(status_line(status), status);
    }
    if let Some(refusal) = challenges.iter().find_map(|challenge| of_challenge(status, challenge)) {
        return TransferError::Refused(refusal);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if !is_json {
        return TransferError::Refused(Refusal { status, code: code_of(status).to_owned(), message: sanitize(text) });
    }
    let problem = match serde_json::from_slice::<Body>(body) {
        Ok(Body { details: Some(details), .. }) if !details.is_empty() => {
            return TransferError::Refused(Refusal { status, code: code_of(status).to_owned(), message: sanitize(&details) });
        }
        Ok(Body { errors: Some(errors), .. }) if !errors.is_empty() => return of_entries(status, &errors),
        _ if status == 401 => {
            let message = "authentication required".to_owned();
            return TransferError::Refused(Refusal { status, code: "UNAUTHORIZED".to_owned(), message });
        }
        Ok(_) => "no error details found in HTTP response body".to_owned(),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => match text.chars().next() {
            Some(first) => format!("invalid character '{}' looking for beginning of value", sanitize(&first.to_string())),
            None => "unexpected end of JSON input".to_owned(),
        },
    };
    TransferError::UnreadableRefusal { status, problem, body: format!("{:?}", text.chars().take(1024).collect::<String>()) }
}

/// The first error counts, as in the original; but if there are several, all are told.
fn of_entries(status: u16, entries: &[Entry]) -> TransferError {
    let refusal = |entry: &Entry| {
        let code = entry.code.as_deref().unwrap_or_default();
        let code = CODES.iter().find(|known| **known == code).copied().unwrap_or("UNKNOWN");
        Refusal { status, code: code.to_owned(), message: sanitize(entry.message.as_deref().unwrap_or_default()) }
    };
    let mut all: Vec<_> = entries.iter().take(16).map(refusal).collect();
    let mut first = all.swap_remove(0);
    if first.message.is_empty() && first.code == "UNKNOWN" {
        first.message = "unknown error".to_owned();
    }
    TransferError::Refused(first)
}

/// RFC 6750 §3.1: a bearer challenge may say what was wrong with the token.
fn of_challenge(status: u16, challenge: &Challenge) -> Option<Refusal> {
    if challenge.scheme != "bearer" {
        return None;
    }
    let (code, standard) = match challenge.parameter("error")? {
        "invalid_token" => ("UNAUTHORIZED", "authentication required"),
        "insufficient_scope" => ("DENIED", "requested access to the resource is denied"),
        _ => return None,
    };
    let message = challenge.parameter("error_description").filter(|text| !text.is_empty()).map_or_else(|| standard.to_owned(), sanitize);
    Some(Refusal { status, code: code.to_owned(), message })
}

fn code_of(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        429 => "TOOMANYREQUESTS",
        _ => "UNKNOWN",
    }
}

/// `500 Internal Server Error`.
pub(crate) fn status_line(status: u16) -> String {
    match http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

/// What a pull makes of a refusal: it names the image that was asked for.
pub(crate) fn of_pull(error: TransferError, reference: &Reference) -> TransferError {
    let TransferError::Refused(refusal) = error else { return error };
    match refusal.code.as_str() {
        "DENIED" => TransferError::PullDenied { repository: reference.familiar_name(), refusal },
        "MANIFEST_UNKNOWN" => TransferError::ManifestUnknown { reference: reference.familiar(), refusal },
        "NAME_UNKNOWN" => TransferError::RepositoryUnknown { repository: reference.familiar_name(), refusal },
        _ => TransferError::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, is_json: bool, body: &str) -> String {
        read(status, is_json, &[], body.as_bytes()).to_string()
    }

    #[test]
    fn refusals_are_told_as_docker_tells_them() {
        for (status, is_json, body, wanted) in [
            (404, true, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#, "manifest unknown: manifest unknown"),
            (401, true, r#"{"Errors":[{"Code":"UNAUTHORIZED","Message":"not you"}]}"#, "unauthorized: not you"),
            (429, true, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow"}]}"#, "toomanyrequests: slow"),
            (400, true, r#"{"errors":[{"code":"WEIRD","message":"odd"}]}"#, "unknown: odd"),
            (400, true, r#"{"errors":[{"code":"NAME_INVALID"}]}"#, "name invalid"),
            (403, true, r#"{"details":"IP blocked"}"#, "denied: IP blocked"),
            (403, false, "go away\n", "denied: go away"),
            (404, false, "boom", "unknown: boom"),
            (401, true, "", "unauthorized: authentication required"),
            (401, true, r#"{"error":"unauthorized"}"#, "unauthorized: authentication required"),
            (500, true, "{", "received unexpected HTTP status: 500 Internal Server Error"),
            (404, true, "{}", "error parsing HTTP 404 response body: no error details found in HTTP response body: \"{}\""),
            (404, true, "<html>", "error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"<html>\""),
            (404, false, "a\u{1b}[31m", "unknown: a\\u{1b}[31m"),
        ] {
            assert_eq!(text(status, is_json, body), wanted, "{status} {body}");
        }
    }

    #[test]
    fn a_challenge_may_say_why() {
        let challenges = crate::challenge::parse([&br#"Bearer realm="x",error="insufficient_scope""#[..]]);
        assert_eq!(read(401, true, &challenges, b"").to_string(), "denied: requested access to the resource is denied");
    }

    #[test]
    fn a_pull_names_the_image() {
        let reference = Reference::parse_normalized("h:1/x:t").unwrap();
        let of = |code: &str| {
            of_pull(TransferError::Refused(Refusal { status: 404, code: code.into(), message: "m".into() }), &reference).to_string()
        };
        assert_eq!(of("MANIFEST_UNKNOWN"), "manifest for h:1/x:t not found: manifest unknown: m");
        assert_eq!(of("NAME_UNKNOWN"), "repository h:1/x not found: name unknown: m");
        assert_eq!(of("DENIED"), "pull access denied for h:1/x, repository does not exist or may require 'docker login': denied: m");
        assert_eq!(of("UNAUTHORIZED"), "unauthorized: m");
    }
}
