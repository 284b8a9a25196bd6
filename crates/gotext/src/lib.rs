//! What Go programs print and match: text/template, durations, sizes, pflag-style flags, `filepath.Match`, `.dockerignore`,
//! the shell words of Dockerfiles, terminal widths.
//!
//! Docker's command line is a Go program, and scripts depend on what it prints. Everything here is pure: text in, text out.
#![forbid(unsafe_code)]

pub mod duration;
pub mod flags;
mod fmt;
pub mod ignore;
pub mod pattern;
pub mod shellwords;
pub mod template;
pub mod units;
mod value;

pub use value::{Record, Value};

/// Prints an operand as `fmt.Sprint` does.
#[must_use]
pub fn print(value: &Value) -> String {
    fmt::plain(value)
}

/// Quotes a text as `%q` does.
#[must_use]
pub fn quote(text: &str) -> String {
    fmt::quote(text)
}

/// A value as Go's `encoding/json` writes it, HTML characters escaped.
#[must_use]
pub fn json(value: &Value) -> String {
    value::json(value)
}
