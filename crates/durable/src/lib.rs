//! Durable files and the one-writer database: mechanism, no tables.
#![forbid(unsafe_code)]

mod db;
mod file;
mod map;
mod trash;

pub use db::{Db, DbError};
pub use file::{write_atomic, write_atomic_with_mode};
pub use map::Mapping;
pub use trash::Trash;
