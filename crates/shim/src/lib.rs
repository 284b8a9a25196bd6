//! One container's parent: the plan of a process, the protocol with the daemon, and the side that applies both.
//!
//! The daemon decides, the shim does: a [`plan::Plan`] is flat data in which every name is resolved and every filter compiled. The
//! shim makes the cgroup, the namespaces, the mounts and the process, owns its terminal or pipes, writes its log, and leaves a
//! durable record of its end. It is single-threaded, knows no JSON and no Docker, and outlives the daemon.
//!
//! A library: the package `/shim` wraps [`serve::main`] into a static binary.
#![forbid(unsafe_code)]

pub mod apply;
pub mod flat;
pub mod init;
pub mod log;
pub mod plan;
pub mod protocol;
pub mod record;
pub mod serve;
