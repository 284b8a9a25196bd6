//! Carrying out a planned build: keys, results of earlier builds, commands in sandboxes, changes of files, images.

mod builder;
mod chain;
mod download;
mod error;
mod event;
mod examine;
mod exec;
mod file;
mod key;
mod schedule;

pub use builder::{BuildRequest, Builder, Built, CacheItem, ContextInput, PruneRequest, Pull, Resources};
pub use error::BuildError;
pub use event::{Event, Watcher};
pub use examine::{Answer, Question};
