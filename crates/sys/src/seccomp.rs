//! Loading of ready seccomp filters.
