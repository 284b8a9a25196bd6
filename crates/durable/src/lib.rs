//! Durable files and the one-writer database: mechanism, no tables.
#![forbid(unsafe_code)]

mod db;
mod file;
mod trash;

pub use db::{Db, DbError};
pub use file::{write_atomic, write_atomic_with_mode};
pub use trash::Trash;
