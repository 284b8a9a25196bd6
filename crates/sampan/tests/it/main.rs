//! The whole program, seen from outside: the unmodified docker CLI and ours against a daemon in namespaces of its own.
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod crash;
mod disk;
mod hostile;
mod kernel;
mod ours;
mod recorded;
mod registry;
mod storm;
mod tour;
