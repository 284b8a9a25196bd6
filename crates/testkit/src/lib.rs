//! What tests and benchmarks of the whole program share.
//!
//! [`World`]: a daemon in namespaces of its own. [`transcript`]: command lines with the output users see. [`images`]: root
//! file systems and archives made from Debian's busybox. [`registry`]: a registry inside a
//! test. [`setup`]: where peers and test data are found. Only this crate and
//! xtask know `../shared`. Never linked into the product.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "test code starts programs and reads its environment")]

pub mod images;
pub mod index;
pub mod normalize;
pub mod registry;
pub mod setup;
pub mod transcript;
mod world;

pub use world::{Output, World, WorldOptions};
