//! What tests and benchmarks of the whole program share.
//!
//! [`World`]: a daemon in namespaces of its own. [`Fleet`]: several of them and a registry's on one wire. [`Service`]: a program
//! that serves in a world. [`index`]: packages for builds. [`registry`]: a registry inside a test. [`transcript`]: command lines
//! with the output users see. [`images`]: root file systems and archives made from Debian's busybox. [`setup`]: where peers and
//! test data are found. Only this crate and xtask know `../shared`. Never linked into the product.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "test code starts programs and reads its environment")]

mod fleet;
pub mod images;
pub mod index;
pub mod normalize;
pub mod registry;
mod service;
pub mod setup;
pub mod transcript;
mod world;

pub use fleet::{Fleet, REGISTRY_ADDRESS, REGISTRY_NAME};
pub use service::Service;
pub use world::{Output, World, WorldOptions};
