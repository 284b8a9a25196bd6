//! What a build tells while it runs.

use sampan_oci::ImageId;
use sampan_sandbox::Output;

use crate::plan::Graph;

/// One fact about a running build. Steps are numbers in [`Graph::steps`]; several may run at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The plan is made.
    Planned(&'a Graph),
    /// A step begins.
    Started(usize),
    /// A step's command runs in a container.
    Running(usize, String),
    /// A command printed something.
    Printed(usize, Output, &'a [u8]),
    /// A command has ended well, and its container is gone.
    Removed(usize, String),
    /// A step is done.
    Done {
        /// Which.
        step: usize,
        /// What it resulted in; `None` for an empty root.
        image: Option<ImageId>,
        /// Whether an earlier result was used.
        cached: bool,
        /// Why it ran, or why not.
        reason: String,
    },
    /// Something that the user should know.
    Warning(String),
}

/// Where a build tells. Called from several threads.
pub type Watcher<'a> = &'a (dyn Fn(Event<'_>) + Sync);
