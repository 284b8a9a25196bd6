//! The formats of images: digests, references, platforms, manifests, configs. Parse and print; no I/O.
//!
//! Everything here may come from a stranger: lengths are checked, nothing panics, unknown fields of configs are kept.
#![forbid(unsafe_code)]

mod config;
mod digest;
mod manifest;
mod platform;
mod reference;

pub use config::{ConfigError, ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId, chain_ids};
pub use manifest::{ArchiveItem, Descriptor, Index, Manifest, ManifestError, media};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
