//! Docker Engine API types and our own: serde only.
#![forbid(unsafe_code)]
