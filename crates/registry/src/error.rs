//! What goes wrong in a registry, and how the specification says it: a status, a code, a message, a detail.
//!
//! The text of the machine (paths, SQL) goes to the log alone; clients get the message of the table.

use std::io;

use sampan_base::ErrorKind;

/// The codes of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The blob is not there.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// The upload is not there.
    BlobUploadUnknown,
    /// The digest is wrong, or not that of the content.
    DigestInvalid,
    /// A manifest names a blob that is not there.
    ManifestBlobUnknown,
    /// The manifest cannot be used.
    ManifestInvalid,
    /// The manifest is not there.
    ManifestUnknown,
    /// The name is wrong.
    NameInvalid,
    /// The repository is not there.
    NameUnknown,
    /// A length is wrong.
    SizeInvalid,
    /// Who are you.
    Unauthorized,
    /// You may not.
    Denied,
    /// Not offered.
    Unsupported,
    /// Slow down.
    TooManyRequests,
    /// The range does not fit.
    RangeInvalid,
    /// `n` of a page is wrong.
    PaginationNumberInvalid,
    /// Anything else.
    Unknown,
}

impl Code {
    /// As it stands in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::BlobUnknown => "blob unknown to registry",
            Self::BlobUploadInvalid => "blob upload invalid",
            Self::BlobUploadUnknown => "blob upload unknown to registry",
            Self::DigestInvalid => "provided digest did not match uploaded content",
            Self::ManifestBlobUnknown => "blob unknown to registry",
            Self::ManifestInvalid => "manifest invalid",
            Self::ManifestUnknown => "manifest unknown",
            Self::NameInvalid => "invalid repository name",
            Self::NameUnknown => "repository name not known to registry",
            Self::SizeInvalid => "provided length did not match content length",
            Self::Unauthorized => "authentication required",
            Self::Denied => "requested access to the resource is denied",
            Self::Unsupported => "the operation is unsupported",
            Self::TooManyRequests => "too many requests",
            Self::RangeInvalid => "invalid content range",
            Self::PaginationNumberInvalid => "invalid number of results requested",
            Self::Unknown => "unknown error",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown | Self::ManifestBlobUnknown => 404,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::PaginationNumberInvalid => 400,
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::Unsupported => 405,
            Self::TooManyRequests => 429,
            Self::RangeInvalid => 416,
            Self::Unknown => 500,
        }
    }
}

/// The status for what the server is not able to take at present.
const FULL: u16 = 413;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", message)]
pub struct RegistryError {
    /// HTTP status.
    pub status: u16,
    /// Code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// For programs: what it is about.
    pub detail: Option<String>,
    /// For the log: what the machine said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What operations of the registry return.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

impl RegistryError {
    /// A failure with the status and the message of its code.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { status: code.status(), code, message: code.message().to_owned(), detail: None, source: None }
    }

    /// A failure with a message of its own.
    #[must_use]
    pub fn say(code: Code, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::new(code) }
    }

    /// With another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With what it is about.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> String {
        let mut error = serde_json::json!({"code": self.code.name(), "message": self.message});
        if let Some(detail) = &self.detail {
            error["detail"] = serde_json::Value::String(detail.clone());
        }
        serde_json::json!({"errors": [error]}).to_string()
    }

    /// Whether there is no room for what came.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.status == FULL && self.code == Code::Denied
    }

    /// Of statuses from 500 on docker shows the number alone, and tries five times what has no room; of this one, with this code,
    /// it shows the message at once.
    fn machine(full: bool, source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let failed = if full {
            Self::say(Code::Denied, "the registry's disk is full: no space left on device").status(FULL)
        } else {
            Self::say(Code::Unknown, "the registry failed; its log says why")
        };
        Self { source: Some(source), ..failed }
    }
}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self::machine(full, Box::new(error))
    }
}

impl From<sampan_durable::DbError> for RegistryError {
    fn from(error: sampan_durable::DbError) -> Self {
        let full = matches!(
            &error,
            sampan_durable::DbError::Sqlite { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        );
        Self::machine(full, Box::new(error))
    }
}

impl sampan_base::Failure for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self.status {
            _ if self.is_full() => ErrorKind::Internal,
            404 => ErrorKind::NotFound,
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Denied,
            405 => ErrorKind::Unsupported,
            409 => ErrorKind::Conflict,
            429 => ErrorKind::Unavailable,
            400..=499 => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_specifications() {
        let error = RegistryError::new(Code::BlobUnknown).detail("sha256:0");
        let body: serde_json::Value = serde_json::from_str(&error.body()).unwrap();
        let expected =
            serde_json::json!({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": "sha256:0"}]});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_full_disk_is_said_and_paths_are_not() {
        let full = RegistryError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.status, full.code, full.is_full()), (413, Code::Denied, true));
        assert!(full.body().contains("disk is full: no space left on device"), "{full}");
        let failed = RegistryError::from(io::Error::other("/secret/path"));
        assert_eq!(failed.status, 500);
        assert!(!failed.body().contains("secret"));
    }
}
