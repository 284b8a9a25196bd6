//! Tar and compression as streams, both ways. No file system: bytes in, facts out.
//!
//! Archives come from strangers: every length is limited, a lying or truncated archive is an error, nothing panics.
#![forbid(unsafe_code)]

mod compress;
mod hash;
mod members;
pub mod tar;

pub use compress::{Compression, Decompress};
pub use hash::{Hasher, Hashing};
pub use members::gzip_members;
