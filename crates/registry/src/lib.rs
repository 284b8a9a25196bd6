//! The registry: the OCI distribution API over HTTP, with users, tokens and storage of its own.
//!
//! [`serve`] is the server; [`users`] is what the commands that look after users need. It runs without privileges, knows nothing of
//! the engine, and touches its data root alone. Layers inside, each of which knows only those before it: pure parsers (`name`,
//! `route`, `range`, `manifest`, `rights`), the store (blocking: `store`, `users`, `token`, `tls`), who asks (`auth`), and `http`.
#![forbid(unsafe_code)]

mod auth;
pub mod config;
pub mod error;
mod http;
pub mod manifest;
mod manifest_cache;
pub mod name;
pub mod range;
pub mod rights;
pub mod route;
pub mod store;
pub mod tls;
pub mod token;
pub mod users;

pub use http::{Running, ServeError, serve};
