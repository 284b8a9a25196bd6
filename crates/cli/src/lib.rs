//! Every command a user types.
//!
//! [`run`] takes words and gives an exit code. A command is a value in a table of `commands`; parsing, help and completion are
//! made from it. Commands talk to the engine through its API only (`remote`), print through `app`, and format through `format`.
#![forbid(unsafe_code)]

mod app;
mod cli;
mod command;
mod commands;
mod complete;
mod config;
mod create;
mod credentials;
mod error;
mod format;
mod plugins;
mod remote;
mod session;

pub use app::{Environment, SOCKET};
pub use cli::run;
pub use error::CliError;
