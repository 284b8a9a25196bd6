//! The life of a container, one file a verb family.
//!
//! Each verb takes the container's operation lock, changes the kernel through `sandbox`, then the facts in memory, then the
//! row, then tells waiters and event readers, in this order: what was told is durable.

mod exit;
mod remove;
mod start;
mod stop;
mod verbs;

pub(crate) use exit::Ended;
pub use remove::RemoveOptions;
