//! The shim's life: one poll loop over the daemon's connection, the streams of its processes and their ends.
//!
//! The loop never waits for anyone: output goes to the log at once and to attached clients as far as they take it; a client that
//! takes nothing for [`streams::PATIENCE`] is dropped. The exit record is durable before the daemon is told.

mod child;
mod server;
mod streams;

use std::io;
use std::os::fd::OwnedFd;

pub use streams::{RAW_HEADER, frame};

/// Runs the shim: `connection` is the daemon's end of a message socket pair. Comes back when the container is over and told.
///
/// # Errors
/// When the loop itself cannot run; nothing of the container is lost then but the reporting.
pub fn main(connection: OwnedFd) -> io::Result<()> {
    let _best_effort = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    // The kernel should take containers before their shims; without CAP_SYS_RESOURCE it may not be told.
    drop(std::fs::write("/proc/self/oom_score_adj", "-999"));
    server::Server::new(connection)?.run()
}

/// The daemon's connection as the shim inherits it: descriptor 3, reached by name as taking over a number is unsafe.
///
/// # Errors
/// When the program was not started by a daemon.
pub fn connection() -> io::Result<OwnedFd> {
    sampan_sys::sock::inherited(3)
}
