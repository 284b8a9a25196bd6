//! The whole program, seen from outside: the unmodified docker CLI and ours against a daemon in namespaces of its own.
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod addresses;
mod build;
mod classic;
mod clients;
mod crash;
mod disk;
mod edges;
mod examples;
mod fleet;
mod health;
mod hostile;
mod kernel;
mod ours;
mod outputs;
mod pull;
mod recorded;
mod registry;
mod storm;
mod tour;
mod voyage;
mod voyage_disk;
mod voyage_storm;
