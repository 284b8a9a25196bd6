//! From container options to the plan of a process, and the daemon's side of the shims that apply it.
//!
//! Planning is pure: options and facts of the host in, a [`sampan_shim::plan::Plan`] out. [`shims`] starts shims and speaks to
//! them; [`logs`] reads what they write. Nothing here enters a namespace or touches a container's root.
#![forbid(unsafe_code)]

pub mod apparmor;
pub mod caps;
pub mod cgroups;
pub mod devices;
mod host;
pub mod logs;
pub mod options;
pub mod plan;
pub mod seccomp;
pub mod shims;
pub mod users;

pub use host::Host;
