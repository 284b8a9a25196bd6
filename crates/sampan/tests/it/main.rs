//! The whole program, seen from outside: the unmodified docker CLI against a daemon in namespaces of its own.
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod crash;
mod kernel;
mod recorded;
mod storm;
mod tour;
