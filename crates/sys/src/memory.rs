//! Memory of this process.

/// Gives free memory of the allocator back to the system, where the C library can: for processes that live long and do little.
pub fn release_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time by any thread and touches only what is free.
    // JUSTIFICATION: no safe interface exists, and an idle process would keep the memory of its busiest moment.
    unsafe {
        libc::malloc_trim(0);
    }
}
