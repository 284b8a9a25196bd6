//! Durable files, read-only mappings, one-writer SQLite: mechanism, no tables.
#![forbid(unsafe_code)]
