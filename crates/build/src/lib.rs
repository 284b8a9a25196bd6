//! The builder: Dockerfile to typed instructions, instructions to a graph of operations.
//!
//! [`dockerfile`] reads, [`plan`](mod@plan) plans; both are pure. [`apply_changes`] is what `commit -c` and `import -c` do with single instructions.
#![forbid(unsafe_code)]

mod changes;
pub mod dockerfile;
pub mod plan;

pub use changes::{ChangeError, apply_changes};
