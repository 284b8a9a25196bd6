//! Dockerfile instructions. Today: those that `commit -c` and `import -c` accept; the builder comes later.
#![forbid(unsafe_code)]

mod changes;

pub use changes::{ChangeError, apply_changes};
