//! The nine kinds of failure. Only a kind decides an HTTP status or an exit code.

/// What sort of failure an error is; every library error has a `kind()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The request contradicts the present state.
    Conflict,
    /// The request itself is wrong.
    Invalid,
    /// Who asks is not known.
    Unauthorized,
    /// Who asks is known and may not.
    Denied,
    /// Understood, but not offered.
    Unsupported,
    /// Another party did not answer; a retry may help.
    Unavailable,
    /// The caller gave up.
    Cancelled,
    /// Our fault, or the machine's.
    Internal,
    /// Nothing to do: the state asked for is there already (HTTP 304).
    NotModified,
}
