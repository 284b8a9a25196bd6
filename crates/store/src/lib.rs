//! Every table of meta.db, and the files beside it: blobs, layers, containers, volumes, networks.
//!
//! ```text
//! VERSION lock meta.db bin/ blobs/ALGO/ab/HEX layers/DIFFID.GEN/fs containers/ID volumes/NAME ingest/ trash/
//! ```
//! Rows before files for deletion, files before rows for creation. A layer's path is never used again (`.GEN`).
#![forbid(unsafe_code)]

mod builds;
mod entities;
mod images;
mod layers;
mod registries;
mod root;

pub use builds::BuildRow;
pub use entities::{ContainerRow, InsertError};
pub use images::{ImageRow, NewImage, TagRow};
pub use layers::{BlobRow, LayerRow, NewBlob};
pub use registries::{ManifestRow, RepoDigestRow};
pub use root::{OpenError, RESUMABLE, Store};
pub use sampan_durable::DbError;
