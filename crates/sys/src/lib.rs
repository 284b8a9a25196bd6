//! The kernel, safely: the only crate of sampan that contains `unsafe`.
//!
//! One module per subject, each a safe interface in terms of file descriptors. Nothing here knows containers, images or
//! Docker; nothing here keeps global state. Every `unsafe` block carries a SAFETY comment.

#[macro_use]
mod macros;

pub mod bpf;
pub mod cgroup;
pub mod dir;
pub mod epoll;
pub mod file;
pub mod map;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod sock;
pub mod user;
