//! Directories by descriptor: openat2-confined lookups and fd-relative file operations.
