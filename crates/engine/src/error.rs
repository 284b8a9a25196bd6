//! What can go wrong, one enumeration for each family of operations. Texts are Docker's where clients read them.

use sampan_base::{ErrorKind, Failure};

/// No container, or more than one, answers to a name.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Nothing has this name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// The prefix fits several ids.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The daemon's exec table has no such id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
}

impl Failure for LookupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_) | Self::NoSuchExec(_) => ErrorKind::NotFound,
            Self::Ambiguous(_) => ErrorKind::Invalid,
        }
    }
}

/// An operation on a container failed.
///
/// Most failures come from a lower room that knows its own text and kind; they pass through as `Room`.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The container was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The request contradicts the state.
    #[error("{0}")]
    Conflict(String),
    /// The named thing does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The state asked for is there already.
    #[error("{0}")]
    NotModified(String),
    /// Understood, but not offered.
    #[error("{0}")]
    Unsupported(String),
    /// A lower room failed.
    #[error("{text}")]
    Room {
        /// What the user reads.
        text: String,
        /// Its kind.
        kind: ErrorKind,
    },
    /// The machine failed.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Failure for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Lookup(error) => error.kind(),
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NotModified(_) => ErrorKind::NotModified,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Room { kind, .. } => *kind,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

/// The text of an error with all its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl EngineError {
    /// Passes on a lower room's failure with its own text and kind.
    pub(crate) fn room(error: &impl Failure) -> Self {
        Self::Room { text: chain(error), kind: error.kind() }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
