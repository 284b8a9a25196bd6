//! Whole files: flock, mmap, syncfs, fallocate.
