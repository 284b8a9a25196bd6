//! An operation's claim on layers: they are not collected while it lives.

use std::sync::atomic::Ordering;

use crate::{ImageError, Images};

/// A lease; unless it is ended otherwise, its layers go with it when nobody else needs them.
pub(crate) struct Lease<'a> {
    images: &'a Images,
    owner: String,
    is_over: bool,
}

impl Images {
    /// A lease without layers yet.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn lease(&self) -> Result<Lease<'_>, ImageError> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| ImageError::io("name an operation")(std::io::Error::other(error)))?;
        Ok(Lease { images: self, owner: hex::encode(random), is_over: false })
    }
}

impl Lease<'_> {
    /// The operation's name.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The image's row holds the layers now; its transaction ended the lease.
    pub(crate) fn done(mut self) {
        self.is_over = true;
    }

    /// The layers wait for the next try.
    pub(crate) fn fade(mut self) {
        self.is_over = true;
        if let Err(error) = self.images.store().fade_lease(&self.owner) {
            tracing::warn!(%error, "cannot shorten a lease");
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Err(error) = self.images.store().end_lease(&self.owner) {
            tracing::warn!(%error, "cannot end a lease");
        }
        self.images.unswept.store(true, Ordering::SeqCst);
        self.images.sweep();
    }
}
