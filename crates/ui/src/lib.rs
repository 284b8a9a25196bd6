//! Printer, tables, hints, progress bars, flag tables.
//!
//! What a terminal shows and how. Nothing here knows a command or a socket.
#![forbid(unsafe_code)]

pub mod complete;
pub mod help;
pub mod progress;
pub mod steps;
pub mod table;
pub mod terminal;
