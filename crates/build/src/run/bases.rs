//! Base images: those that are here, and those that are fetched.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use sampan_base::Cancel;
use sampan_images::Images;
use sampan_oci::{Platform, Reference};

use super::request::Pull;
use crate::plan::{Base, BaseError, BaseImage, Bases};

/// Images that are here, or are fetched.
pub(super) struct Local<'a> {
    pub(super) images: &'a Images,
    pub(super) pull: Pull<'a>,
    pub(super) pull_always: bool,
    pub(super) seen: Mutex<HashSet<String>>,
    pub(super) cancel: &'a Cancel,
}

impl Bases for Local<'_> {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Base, BaseError> {
        let wrong = |error: sampan_images::ImageError| BaseError { kind: sampan_base::Failure::kind(&error), message: error.to_string() };
        let name = reference.familiar();
        let first = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let here = || self.images.resolve_for(&name, Some(platform));
        let mut found = here();
        if self.cancel.is_cancelled() {
            return Err(BaseError { kind: sampan_base::ErrorKind::Cancelled, message: "operation cancelled".into() });
        }
        if (self.pull_always && first) || found.is_err() {
            (self.pull)(reference, platform)?;
            found = here();
        }
        let image = found.map_err(wrong)?;
        let base = BaseImage { reference: reference.clone(), digest: None, id: image.id };
        Ok(Base { image: base, config: image.config })
    }
}
