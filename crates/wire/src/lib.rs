//! JSON of the Docker Engine API: documents whose key order clients see, and bodies read as leniently as Go reads them.
//!
//! `docker inspect` prints the server's document in the server's order, so documents are built as ordered lists, not maps. Go
//! matches keys without regard to case and takes `null` for any default: [`Fields`] does the same.
#![forbid(unsafe_code)]

mod fields;
mod json;

pub use fields::{FieldError, Fields};
pub use json::Json;
