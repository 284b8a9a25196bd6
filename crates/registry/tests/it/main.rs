//! A real server on loopback and a plain client that writes HTTP by hand: the checks of the distribution specification, and clients
//! that mean no good.
#![allow(clippy::unwrap_used, reason = "test code")]

mod client;
mod conformance;
mod hostile;
mod login;
mod restart;
