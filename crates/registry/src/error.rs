//! The errors that clients see: the codes of the distribution specification, as JSON. Knows no storage.

use http::StatusCode;
use serde_json::json;

/// Codes of the distribution specification §"Error Codes", and those that registries in the field add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    RangeInvalid,
    PaginationInvalid,
    TagInvalid,
    Unknown,
}

impl Code {
    /// As the specification writes it, with the usual message and status.
    fn facts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", "blob unknown to registry", StatusCode::NOT_FOUND),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", "blob upload invalid", StatusCode::BAD_REQUEST),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", StatusCode::NOT_FOUND),
            Self::DigestInvalid => ("DIGEST_INVALID", "provided digest did not match uploaded content", StatusCode::BAD_REQUEST),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", StatusCode::NOT_FOUND),
            Self::ManifestInvalid => ("MANIFEST_INVALID", "manifest invalid", StatusCode::BAD_REQUEST),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", "manifest unknown", StatusCode::NOT_FOUND),
            Self::NameInvalid => ("NAME_INVALID", "invalid repository name", StatusCode::BAD_REQUEST),
            Self::NameUnknown => ("NAME_UNKNOWN", "repository name not known to registry", StatusCode::NOT_FOUND),
            Self::SizeInvalid => ("SIZE_INVALID", "provided length did not match content length", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UNAUTHORIZED", "authentication required", StatusCode::UNAUTHORIZED),
            Self::Denied => ("DENIED", "requested access to the resource is denied", StatusCode::FORBIDDEN),
            Self::Unsupported => ("UNSUPPORTED", "The operation is unsupported.", StatusCode::METHOD_NOT_ALLOWED),
            Self::TooManyRequests => ("TOOMANYREQUESTS", "too many requests", StatusCode::TOO_MANY_REQUESTS),
            Self::RangeInvalid => ("RANGE_INVALID", "invalid content range", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::PaginationInvalid => ("PAGINATION_NUMBER_INVALID", "invalid number of results requested", StatusCode::BAD_REQUEST),
            Self::TagInvalid => ("TAG_INVALID", "manifest tag did not match URI", StatusCode::BAD_REQUEST),
            Self::Unknown => ("UNKNOWN", "unknown error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// A request that is refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    code: Code,
    message: String,
    detail: Option<String>,
    /// Further headers, such as the challenge.
    pub(crate) headers: Vec<(http::HeaderName, String)>,
}

/// What a handler gives.
pub(crate) type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    /// With the code's own message and status.
    pub(crate) fn new(code: Code) -> Self {
        let (_, message, status) = code.facts();
        Self { status, code, message: message.to_owned(), detail: None, headers: Vec::new() }
    }

    /// With what was wrong, for whoever reads the body.
    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// With another status.
    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With another message.
    pub(crate) fn message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// With a header.
    pub(crate) fn header(mut self, name: http::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A failure on our side: the log has the reason, the client does not.
    pub(crate) fn internal(action: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!("cannot {action}: {error}");
        Self::new(Code::Unknown).detail(format!("cannot {action}"))
    }

    /// A failing disk; a full one is told as 507, as a retry may help once there is room.
    pub(crate) fn disk(action: &str, error: &std::io::Error) -> Self {
        let is_full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let refusal = Self::internal(action, error);
        if is_full { refusal.status(StatusCode::INSUFFICIENT_STORAGE).message("no space left on the registry's disk") } else { refusal }
    }

    /// The body.
    pub(crate) fn body(&self) -> Vec<u8> {
        let (code, ..) = self.code.facts();
        let mut error = json!({ "code": code, "message": self.message });
        if let Some(detail) = &self.detail {
            error["detail"] = json!(detail);
        }
        let mut text = json!({ "errors": [error] }).to_string().into_bytes();
        text.push(b'\n');
        text
    }
}

impl From<sampan_durable::DbError> for Refusal {
    fn from(error: sampan_durable::DbError) -> Self {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let is_full = source.contains("disk is full");
        let refusal = Self::internal("use the database", &format!("{error}: {source}"));
        if is_full { refusal.status(StatusCode::INSUFFICIENT_STORAGE) } else { refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_specifications() {
        let refusal = Refusal::new(Code::BlobUnknown).detail("sha256:0");
        let text = String::from_utf8(refusal.body()).unwrap();
        assert_eq!(text, "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\",\"detail\":\"sha256:0\",\"message\":\"blob unknown to registry\"}]}\n");
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        let full = Refusal::disk("write", &std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.status, StatusCode::INSUFFICIENT_STORAGE);
    }
}
