//! Applying a plan: the side that makes the kernel do it. Each step fails with its [`Stage`] and errno, never with words to match.

pub mod cgroup;
mod container;
mod devices;
mod identity;
mod masks;
mod mounts;
mod place;
pub mod program;

use std::io;

pub use container::{Container, Descriptors, Stdio, start};
pub use mounts::attach_all;
pub use place::make_working_directory;
pub use program::{ExecOutcome, exec};

use crate::protocol::Stage;

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which step.
    pub stage: Stage,
    /// The kernel's number; 0: none.
    pub errno: i32,
    /// What it was about.
    pub detail: String,
}

impl Fault {
    /// A failure of the kernel in a step.
    pub(crate) fn new(stage: Stage, detail: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let detail = detail.into();
        move |error| Self { stage, errno: error.raw_os_error().unwrap_or(0), detail }
    }
}
