//! Processes: clone3, pidfd, spawn with descriptors, capabilities, rlimits, prctl.
