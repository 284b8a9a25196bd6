//! The Docker Engine API: HTTP routes, streams and Docker's documents over the engine.
//!
//! The only room that knows HTTP statuses and Docker's JSON. Engine calls are blocking and run on blocking threads; whatever waits
//! long (wait, logs, attach, events, stats) is polled here and holds no thread.
#![forbid(unsafe_code)]

mod body;
pub mod decode;
mod escape;
mod frames;
mod handover;
mod hijack;
mod names;
mod progress;
mod query;
mod respond;
mod routes;
mod server;
mod shape;

pub use server::{Listener, ServerConfig, serve};

/// The newest API version that is served, and the oldest.
pub const API: (u32, u32) = (1, 51);
/// The oldest API version that is served.
pub const MIN_API: (u32, u32) = (1, 24);
/// The version clients compare, as the original's with our name behind it.
pub const VERSION: &str = "28.5.2+sampan";
