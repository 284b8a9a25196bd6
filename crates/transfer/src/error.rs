//! What may go wrong between us and a registry, in the words that Docker's daemon uses, as clients match them.

use sampan_base::{Cancelled, ErrorKind, Failure};
use sampan_oci::Digest;

/// An answer of a registry that refuses: one entry of the specification's error list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code, such as `MANIFEST_UNKNOWN`; `UNKNOWN` where it is none of the specification.
    pub code: String,
    /// The registry's words.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        if self.message.is_empty() { f.write_str(&code) } else { write!(f, "{code}: {}", self.message) }
    }
}

/// A failed exchange with a registry. `Display` is the whole text as Docker's daemon prints it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The caller gave up.
    #[error("context canceled")]
    Cancelled,
    /// A pull of a tag or digest that the registry does not have.
    #[error("manifest for {reference} not found: {refusal}")]
    ManifestUnknown {
        /// What was asked for, in familiar form.
        reference: String,
        /// The registry's words.
        refusal: Refusal,
    },
    /// A pull from a repository that the registry does not have.
    #[error("repository {repository} not found: {refusal}")]
    RepositoryUnknown {
        /// What was asked for, in familiar form.
        repository: String,
        /// The registry's words.
        refusal: Refusal,
    },
    /// A pull that the registry denies.
    #[error("pull access denied for {repository}, repository does not exist or may require 'docker login': {refusal}")]
    PullDenied {
        /// What was asked for, in familiar form.
        repository: String,
        /// The registry's words.
        refusal: Refusal,
    },
    /// Any other refusal in the specification's form.
    #[error("{0}")]
    Refused(Refusal),
    /// A status that says no more than itself.
    #[error("received unexpected HTTP status: {0}")]
    Status(String, u16),
    /// An address whose server gave no file.
    #[error("invalid response status {status}")]
    Unwelcome {
        /// The address, without credentials.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A refusal whose body is not the specification's.
    #[error("error parsing HTTP {status} response body: {problem}: {body}")]
    UnreadableRefusal {
        /// The HTTP status.
        status: u16,
        /// What is wrong with the body.
        problem: String,
        /// The beginning of the body, quoted.
        body: String,
    },
    /// The registry wants a name and a password, and there are none.
    #[error("{context}no basic auth credentials")]
    NoCredentials {
        /// `Head "https://…": `, or nothing where Docker says nothing.
        context: String,
    },
    /// The token service gave none.
    #[error("{context}{cause}")]
    Token {
        /// `Head "https://…": ` of the request that needed the token.
        context: String,
        /// What the token service said.
        cause: Box<Self>,
    },
    /// A login that the registry did not accept.
    #[error("login attempt to {url} failed with status: {status}")]
    LoginFailed {
        /// The address.
        url: String,
        /// The status line.
        status: String,
        /// The same as a number.
        code: u16,
    },
    /// The request never got an answer: no name, no connection, no trust, no time.
    #[error("{method} \"{url}\": {cause}")]
    Transport {
        /// The method, in Go's spelling.
        method: String,
        /// The address, without credentials.
        url: String,
        /// Why, in Go's words where they are known.
        cause: String,
    },
    /// A target that no redirect and no token service may name.
    #[error("{context}refusing to follow to {target}: {reason}")]
    Forbidden {
        /// `Get "https://…": ` of the request.
        context: String,
        /// The address that the answer named.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// The bytes are not those of the digest.
    #[error("content of {digest} does not match its digest: received {received}")]
    WrongDigest {
        /// What was asked for.
        digest: Digest,
        /// What came.
        received: String,
    },
    /// The body has another length than promised.
    #[error("content of {digest} has the wrong size: expected {expected} bytes, received {received}")]
    WrongSize {
        /// What was asked for.
        digest: Digest,
        /// How long it should be.
        expected: u64,
        /// How long it is.
        received: String,
    },
    /// More than we are willing to read.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// Its limit.
        limit: u64,
    },
    /// An answer that makes no sense.
    #[error("invalid answer of {host}: {problem}")]
    Malformed {
        /// Who sent it.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The request itself cannot be made.
    #[error("{0}")]
    Invalid(String),
    /// A certificate, key or proxy of the configuration that cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// The caller's own source of bytes failed.
    #[error("reading the content to send")]
    Source(#[source] std::io::Error),
}

impl TransferError {
    /// The same without the request that it belongs to, as pushes tell it.
    pub(crate) fn bare(self) -> Self {
        match self {
            Self::NoCredentials { .. } => Self::NoCredentials { context: String::new() },
            Self::Token { cause, .. } => *cause,
            other => other,
        }
    }
}

impl From<Cancelled> for TransferError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl Failure for TransferError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            Self::ManifestUnknown { .. } | Self::RepositoryUnknown { .. } | Self::PullDenied { .. } => ErrorKind::NotFound,
            Self::Refused(refusal) => refused(refusal),
            Self::Status(_, status) | Self::Unwelcome { status, .. } | Self::UnreadableRefusal { status, .. } => of_status(*status),
            Self::LoginFailed { code, .. } => of_status(*code),
            Self::NoCredentials { .. } => ErrorKind::Unauthorized,
            Self::Token { cause, .. } => cause.kind(),
            Self::Transport { .. } => ErrorKind::Unavailable,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Forbidden { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Configuration(_)
            | Self::Source(_) => ErrorKind::Internal,
        }
    }
}

fn refused(refusal: &Refusal) -> ErrorKind {
    match refusal.code.as_str() {
        "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" => ErrorKind::NotFound,
        "UNAUTHORIZED" => ErrorKind::Unauthorized,
        "DENIED" => ErrorKind::Denied,
        "TOOMANYREQUESTS" | "UNAVAILABLE" => ErrorKind::Unavailable,
        "UNSUPPORTED" => ErrorKind::Unsupported,
        _ => of_status(refusal.status),
    }
}

fn of_status(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        405 | 415 | 501 => ErrorKind::Unsupported,
        409 => ErrorKind::Conflict,
        408 | 429 | 502..=504 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}
