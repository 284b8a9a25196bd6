//! The binary: dispatch, configuration, logging, signals, starting the daemon on demand.
#![forbid(unsafe_code)]

fn main() {}
