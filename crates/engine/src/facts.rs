//! What the engine knows of itself and the machine, for `info` and `version`.

use crate::Engine;
use crate::model::Status;

/// Facts of a running engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of this data root.
    pub id: String,
    /// Containers: all, running, paused, stopped.
    pub containers: [usize; 4],
    /// Images.
    pub images: usize,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Release of the kernel.
    pub kernel: String,
    /// Build of the kernel.
    pub kernel_version: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// Its version.
    pub os_version: String,
    /// `amd64`, …
    pub architecture: String,
    /// Processors.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    /// Host name.
    pub name: String,
    /// Data root.
    pub root: String,
    /// URLs of mirrors of Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Names or networks of registries without TLS.
    pub insecure_registries: Vec<String>,
    /// Whether containers outlive the daemon.
    pub live_restore: bool,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// Whether the kernel forwards IPv4.
    pub forwarding: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// When the engine started, nanoseconds since the epoch.
    pub started_at: i64,
}

impl Engine {
    /// What the user should know of this machine.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.sandboxes().profile_warning().into_iter().collect();
        all.extend(self.firewall_warnings());
        all
    }

    /// Looks around.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let release = text("/etc/os-release");
        let field = |key: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let host = self.sandboxes().host();
        let all = self.table().all();
        let count = |wanted: &[Status]| all.iter().filter(|container| wanted.contains(&container.facts().state.status)).count();
        Facts {
            id: self.id.clone(),
            containers: [
                all.len(),
                count(&[Status::Running]),
                count(&[Status::Paused]),
                count(&[Status::Created, Status::Exited, Status::Dead, Status::Removing]),
            ],
            images: self.images().all().map_or(0, |images| images.len()),
            cgroup_version: if host.unified { 2 } else { 1 },
            kernel: text("/proc/sys/kernel/osrelease"),
            kernel_version: text("/proc/sys/kernel/version"),
            operating_system: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
            architecture: std::env::consts::ARCH.to_owned(),
            cpus: host.cpus,
            memory: host.memory,
            name: text("/proc/sys/kernel/hostname"),
            root: self.data_root().display().to_string(),
            registry_mirrors: self.config.registry_mirrors.clone(),
            insecure_registries: self.config.insecure_registries.clone(),
            live_restore: self.config.live_restore,
            apparmor: host.apparmor,
            forwarding: text("/proc/sys/net/ipv4/ip_forward") == "1",
            warnings: self.warnings(),
            started_at: self.started_at(),
        }
    }
}
