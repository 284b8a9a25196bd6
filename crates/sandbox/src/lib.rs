//! One process tree in a root file system with a network: mounts, cgroup, netns and ports, shim, exec, counters, adopt, stop.
#![forbid(unsafe_code)]
