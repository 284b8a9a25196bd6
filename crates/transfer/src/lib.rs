//! Registry client: auth, pull, push, mirrors, referrers, resume.
//!
//! A [`Client`] speaks the distribution protocol to any registry. It is asynchronous inside and lives on a tokio runtime that the
//! caller names; its face is blocking, for plain threads. It knows no image: manifests are bytes with a media type, blobs are
//! streams, and which of them belong together is the caller's business. It reads no environment and no home folder: the
//! [`Config`] and the [`Login`] bring everything.
//!
//! Trust: every byte of a reply is hostile. All sizes have limits, digests of documents are checked here, those of blobs by the
//! caller, who hashes them anyway. Credentials go to the registry and its token service only, never to a redirect's target.
#![forbid(unsafe_code)]

mod address;
mod blob;
mod cause;
pub mod challenge;
mod client;
mod config;
mod endpoint;
mod error;
mod exchange;
mod fetch;
pub mod headers;
mod lists;
mod login;
mod manifest;
mod referrers;
mod refusal;
mod registry;
mod resolve;
mod search;
mod state;
mod tls;
mod token;
mod types;
mod upload;
mod validity;
mod waiting;

pub use blob::BlobReader;
pub use client::Client;
pub use config::{Config, Login, Proxies, Timing};
pub use error::{Refusal, TransferError};
pub use fetch::{FetchRequest, Fetched};
pub use types::{FetchedManifest, LoginAnswer, SearchItem};
