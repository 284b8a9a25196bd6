//! Every table of meta.db and its migrations; content-addressed files; garbage collection.
#![forbid(unsafe_code)]
