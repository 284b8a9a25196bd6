//! The registry: a server of the OCI distribution API with users, tokens and TLS of its own.
//!
//! Runs without privileges and without an engine. [`run`] serves a data root until it is told to stop; [`Meta`] is what the
//! commands that change users open beside it. Rooms: `route`, `range`, `document` and `error` are pure; `store` keeps; `auth`
//! decides; `handlers` answer; `server` listens.
#![forbid(unsafe_code)]

mod auth;
mod cache;
mod document;
mod error;
mod handlers;
mod metrics;
mod range;
mod route;
mod server;
mod store;

use std::sync::Arc;

pub use auth::{Anonymous, PasswordError, hash};
pub use server::{Ready, ServeConfig, ServeError, TlsChoice, run};
pub use store::{Meta, OpenError, Role, User};

/// The name that stands for the list of repositories where rights are asked.
pub(crate) const CATALOG: &str = "_catalog";

/// Everything that a request needs.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) store: Arc<store::Store>,
    pub(crate) auth: auth::Auth,
    pub(crate) cache: cache::Cache,
    pub(crate) metrics: metrics::Metrics,
    /// Largest blob, bytes.
    pub(crate) max_blob: u64,
    /// Whether clients speak TLS to us.
    pub(crate) is_tls: bool,
    /// Everybody may do everything: clients need not be asked who they are.
    pub(crate) is_open: std::sync::atomic::AtomicBool,
}
