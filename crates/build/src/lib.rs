//! The builder: Dockerfile to typed instructions, instructions to a graph of operations.
//!
//! [`dockerfile`] reads, [`plan`](mod@plan) plans; both are pure. [`apply_changes`] is what `commit -c` and `import -c` do with single instructions.
#![forbid(unsafe_code)]

mod changes;
pub mod dockerfile;
mod files;
pub mod plan;
mod run;

pub use changes::{ChangeError, apply_changes};
pub use run::{
    Answer, BuildError, BuildRequest, Builder, Built, CacheItem, ContextInput, Event, PruneRequest, Pull, Question, Resources, Watcher,
};
pub use sampan_sandbox::{Limits, Output as StepOutput};
