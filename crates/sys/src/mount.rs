//! Mounts: the new mount API, detached trees, pivot_root.
