//! Directories to entries and back by fd: extraction, packing, diff, overlay mounts.
#![forbid(unsafe_code)]
