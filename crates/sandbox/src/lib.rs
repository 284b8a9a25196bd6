//! One process tree in a root file system with a network: start, exec, signal, limits, counters, adopt, clean up.
//!
//! The place where the rooms below meet: `layers` mounts the root, `net` makes the network, `runtime` plans and asks the shim.
//! Knows no images and no restart policies: for containers and build steps alike.
#![forbid(unsafe_code)]

mod counters;
mod error;
mod sandboxes;
mod start;
mod step;

pub use counters::{Counters, NetworkCounters};
pub use error::StartError;
pub use sandboxes::{Adopted, SandboxConfig, SandboxEvent, Sandboxes, endpoint_id};
pub use start::{Network, Running, StartRequest};
pub use step::{Output, StepBind, StepEnd, StepError, StepRequest};

pub use sampan_runtime::cgroups::Limits;
pub use sampan_runtime::users::{User, UserError, resolve as resolve_user_in};

pub use sampan_runtime::shims::Attachment;
pub use sampan_shim::protocol::Streams;

/// A text as a frame of standard output.
#[must_use]
pub fn output_frame(text: &str) -> Vec<u8> {
    sampan_shim::serve::frame(sampan_shim::log::Stream::Stdout, text.as_bytes())
}
