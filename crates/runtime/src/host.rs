//! What planning has to know of this machine.

use std::path::{Path, PathBuf};

use crate::seccomp::Filters;

/// Facts of the host, read once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// cgroup v2 alone.
    pub unified: bool,
    /// v1: mount points of the controllers, by name, each hierarchy once.
    pub controllers: Vec<(String, PathBuf)>,
    /// v1: CPUs and memory nodes that a new cpuset may use.
    pub cpuset: (String, String),
    /// Capabilities that this process can hand on.
    pub capabilities: u64,
    /// Major and minor version.
    pub kernel: (u32, u32),
    /// Processors online.
    pub cpus: u32,
    /// Whether AppArmor is on and profiles can be loaded.
    pub apparmor: bool,
    /// Bytes of memory.
    pub memory: u64,
    /// Default seccomp filters that were compiled for it.
    pub filters: Filters,
}

const V1: [&str; 8] = ["devices", "memory", "pids", "cpu", "cpuacct", "cpuset", "freezer", "blkio"];

impl Host {
    /// Looks at the machine.
    #[must_use]
    pub fn detect() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").is_file();
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuset = |file: &str| {
            let value = std::fs::read_to_string(root.join("cpuset").join(file)).unwrap_or_default();
            value.trim().to_owned()
        };
        let mask = |name: &str| {
            let status = text("/proc/self/status");
            status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok()).unwrap_or(0)
        };
        let memory = text("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0_u64);
        Self {
            unified,
            controllers: if unified { Vec::new() } else { v1_controllers(root) },
            cpuset: (cpuset("cpuset.cpus"), cpuset("cpuset.mems")),
            capabilities: mask("CapBnd:"),
            kernel: kernel_version(&text("/proc/sys/kernel/osrelease")),
            cpus: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            apparmor: crate::apparmor::is_on(),
            memory: memory * 1024,
            filters: Filters::default(),
        }
    }

    /// Directory of a container's cgroup in one hierarchy.
    #[must_use]
    pub fn cgroup_directory(&self, controller: &str, path: &str) -> PathBuf {
        let base = self
            .controllers
            .iter()
            .find(|(name, _)| name == controller)
            .map_or_else(|| PathBuf::from("/sys/fs/cgroup"), |(_, base)| base.clone());
        base.join(path.trim_start_matches('/'))
    }
}

fn v1_controllers(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for name in V1 {
        // `cpu` and `cpuacct` may be links to one hierarchy.
        let Ok(path) = root.join(name).canonicalize() else { continue };
        found.push((name.to_owned(), path));
    }
    found
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
