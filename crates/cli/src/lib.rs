//! Every command a user types.
#![forbid(unsafe_code)]
