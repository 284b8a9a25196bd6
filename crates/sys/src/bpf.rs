//! eBPF programs for cgroup v2 devices: load and attach.
