//! The server over a real engine without containers: heads, versions, errors, and clients that mean harm.
//!
//! What needs a running container is tested end to end, not here.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

mod hostile;
mod plain;
mod world;
