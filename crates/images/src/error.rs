//! What can go wrong with images; texts are Docker's where clients read them.

use sampan_base::{ErrorKind, Failure};
use sampan_layers::ExtractError;
use sampan_oci::{Platform, ReferenceError};
use sampan_store::DbError;
use sampan_transfer::TransferError;

/// An operation on images that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image answers to a name.
    #[error("No such image: {0}")]
    NotFound(String),
    /// An image is there, but not for the platform that was asked for.
    #[error("image with reference {name} was found but its platform ({have}) does not match the specified platform ({wanted})")]
    Platform {
        /// As it was asked for.
        name: String,
        /// The image's.
        have: Box<Platform>,
        /// The wish.
        wanted: Box<Platform>,
    },
    /// A name that is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The request or an archive is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The request contradicts the state.
    #[error("{0}")]
    Conflict(String),
    /// An archive's layer is bad.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A layer from a registry cannot be unpacked.
    #[error("failed to register layer")]
    Register(#[source] ExtractError),
    /// A layer that an image needs is gone.
    #[error("layer {0} is missing: load or import the image again")]
    MissingLayer(String),
    /// An index without an image for a platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(Box<Platform>),
    /// A registry, or the way to it.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A registry sent what is no image.
    #[error("{0}")]
    Registry(String),
    /// Something that registries may hold and we do not take.
    #[error("{0}")]
    Unsupported(String),
    /// A manifest of Docker's form for something that is no image; told before the pull begins.
    #[error("{0}")]
    WrongClass(String),
    /// What another operation that does the same work failed with.
    #[error(transparent)]
    Shared(std::sync::Arc<Self>),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The disk failed.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The caller gave up.
    #[error("operation cancelled")]
    Cancelled,
}

impl Failure for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::Platform { .. } | Self::NoPlatform(_) => ErrorKind::NotFound,
            Self::Reference(_) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Extract(error) | Self::Register(error) => error.kind(),
            Self::Transfer(error) => error.kind(),
            Self::Shared(error) => error.kind(),
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::WrongClass(_) => ErrorKind::Invalid,
            Self::Registry(_) | Self::MissingLayer(_) | Self::Db(_) | Self::Io { .. } => ErrorKind::Internal,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl ImageError {
    /// Whether the same may succeed later: what came so far is worth keeping.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Transfer(error) => matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled),
            Self::Shared(error) => error.may_pass(),
            _ => false,
        }
    }

    /// Whether the disk is full, wherever it was noticed.
    pub(crate) fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
