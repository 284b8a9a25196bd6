//! The engine: life cycles of containers, networks and volumes.
//!
//! Everything between a validated wish and the rooms that fulfil it: which container exists, what may happen to it now,
//! what happens when it ends, what a restart of the daemon finds. Blocking Rust on the caller's thread; whatever waits
//! long is a [`Subscription`]. No HTTP, no Docker JSON, no async runtime.
#![forbid(unsafe_code)]

pub mod model;
mod subscription;

pub use subscription::{Sender, Subscription, channel, ready};
