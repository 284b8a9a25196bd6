//! Tar and compression as streams of entries, both ways, with limits. No file system.
#![forbid(unsafe_code)]
