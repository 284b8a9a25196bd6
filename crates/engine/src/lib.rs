//! The engine: life cycles of containers, networks and volumes.
//!
//! Everything between a validated wish and the rooms that fulfil it: which container exists, what may happen to it now,
//! what happens when it ends, what a restart of the daemon finds. Blocking Rust on the caller's thread; whatever waits
//! long is a [`Subscription`]. No HTTP, no Docker JSON, no async runtime.
#![forbid(unsafe_code)]

mod boot;
mod clock;
mod conflicts;
mod copy;
mod create;
mod devices;
mod disk;
mod engine;
mod error;
mod events;
mod exec;
mod facts;
mod health;
mod image_config;
mod lifecycle;
mod merge;
pub mod model;
mod mounts;
mod names;
mod networks;
mod options;
mod prune;
mod request;
mod restart;
mod rows;
mod signals;
mod spot;
mod streams;
mod subpath;
mod subscription;
mod table;
mod top;
mod volumes;

pub use copy::CommitRequest;
pub use create::{CreateRequest, Created};
pub use engine::{Engine, EngineConfig};
pub use error::{EngineError, LookupError, chain};
pub use events::EventBus;
pub use facts::Facts;
pub use lifecycle::RemoveOptions;
pub use prune::{PruneFilter, PruneReport};
pub use request::ulimit_number;
pub use streams::{AttachRequest, Attached, Logs};
pub use subscription::{Sender, Subscription, channel, ready};
pub use table::{WaitCondition, WaitResult};
pub use top::Top;

/// Paths that are hidden from containers by default.
pub const MASKED_PATHS: &[&str] = &sampan_runtime::plan::MASKED;
/// Paths that containers cannot write by default.
pub const READONLY_PATHS: &[&str] = &sampan_runtime::plan::READONLY;
pub use sampan_layers::{Change, ChangeKind, PathStat};
pub use sampan_runtime::logs::{LogEntry, LogQuery, LogStream};
pub use sampan_sandbox::Counters;
pub use volumes::VolumeRequest;
