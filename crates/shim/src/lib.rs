//! The flat plan of a process, its codec, the daemon-shim protocol, log-line and exit-record formats; and the side that applies a plan.
#![forbid(unsafe_code)]
