//! Files that steps read and write: sources (a context, another stage), what is selected of them, and changes of a root.
//!
//! No path is ever resolved by the kernel outside the root that it belongs to.

mod apply;
mod earlier;
mod folder;
mod host;
mod memory;
mod select;
mod source;
mod target;
mod unpack;

pub(crate) use apply::{Applied, apply};
pub(crate) use earlier::{Earlier, Record};
pub(crate) use folder::Merged;
pub(crate) use host::HostTree;
pub(crate) use memory::{MemoryTree, Mirror, read_tar};
pub(crate) use select::{Selected, digest, select};
pub(crate) use source::{NodeKind, Source, TreeSource};
pub(crate) use target::Target;
