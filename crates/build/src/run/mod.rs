//! Carrying out a planned build: keys, results of earlier builds, commands in sandboxes, changes of files, images.

mod bases;
mod build;
mod builder;
mod chain;
mod context;
mod download;
mod error;
mod event;
mod examine;
mod exec;
mod file;
mod flight;
mod key;
mod memory;
mod request;
mod schedule;
mod step;

pub use builder::Builder;
pub use error::BuildError;
pub use event::{Event, Watcher};
pub use examine::{Answer, Question};
pub use memory::{CacheItem, PruneRequest};
pub use request::{BuildRequest, Built, ContextInput, Pull, Resources};
