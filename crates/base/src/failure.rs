//! The one question an edge asks of an error.

use crate::ErrorKind;

/// An error of an operation: text for people, a kind for machines.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// What sort of failure it is.
    fn kind(&self) -> ErrorKind;
}
