//! A container as it is stored and as it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::host::{HostConfig, PortMap};
use super::network::{EndpointRequest, EndpointView};

/// What `create` decided: changes only by `rename` and `update`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// 64 hex digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// Creation time, nanoseconds since the Unix epoch.
    pub created: i64,
    /// Image id (`sha256:…`); empty when the image is gone.
    pub image_id: String,
    /// The platform's operating system.
    pub platform: String,
    /// Digest of the manifest the image was resolved from, where known.
    pub manifest_digest: String,
    /// What runs, merged with the image.
    pub config: Config,
    /// How it runs.
    pub host: HostConfig,
    /// Wanted endpoints: network name to request.
    pub endpoints: BTreeMap<String, EndpointRequest>,
    /// Mounts, resolved at create.
    pub mounts: Vec<MountPoint>,
}

/// The life of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its process lives.
    Running,
    /// Its process is frozen.
    Paused,
    /// It waits for its next start by the restart policy.
    Restarting,
    /// It is being removed.
    Removing,
    /// Its process ended.
    Exited,
    /// A removal failed half-way.
    Dead,
}

/// What happened to a container so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where in its life.
    pub status: Status,
    /// Host process id of its init; 0 when none.
    pub pid: u32,
    /// Of the last run.
    pub exit_code: i32,
    /// Why the last start failed; empty when it did not.
    pub error: String,
    /// Whether the kernel killed a process of the last run for memory.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch; 0: never.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0: never.
    pub finished_at: i64,
    /// How often the restart policy started it.
    pub restart_count: u32,
    /// Whether a user stopped it (matters to `unless-stopped`).
    pub manually_stopped: bool,
    /// Whether it ever ran.
    pub has_been_started: bool,
    /// Published ports of the present run.
    pub ports: PortMap,
    /// Endpoints of the present run: network name to facts.
    pub endpoints: BTreeMap<String, EndpointView>,
    /// What its probe found; `None`: it was never started with one.
    pub health: Option<Health>,
}

/// Whether a container does its work, as its probe sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// No probe has succeeded in this run, and not enough have failed.
    Starting,
    /// The last probes found it well.
    Healthy,
    /// Too many probes in a row failed, or nobody probes at present.
    #[default]
    Unhealthy,
}

/// What probes found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<ProbeResult>,
}

/// How one probe ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeResult {
    /// Nanoseconds since the epoch.
    pub start: i64,
    /// Nanoseconds since the epoch.
    pub end: i64,
    /// The program's; −1: it could not be run, or took too long.
    pub exit_code: i32,
    /// What it wrote, or why it has no code of its own.
    pub output: String,
}

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Volume name, else empty.
    pub name: String,
    /// Host path.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// `local` for volumes, else empty.
    pub driver: String,
    /// The mode as the user wrote it (`ro`, `z`).
    pub mode: String,
    /// Whether it can be written.
    pub rw: bool,
    /// Propagation; empty for volumes.
    pub propagation: String,
    /// Whether `-v` asked for the whole tree (`rbind`), the default.
    pub non_recursive: bool,
    /// Only the top mount is read-only.
    pub read_only_non_recursive: bool,
    /// Directory inside a volume.
    pub subpath: String,
    /// Copy the image's files into a new volume.
    pub copy_up: bool,
    /// Mount options of a tmpfs, comma separated.
    pub tmpfs_options: String,
    /// An anonymous volume, removed with the container.
    pub anonymous: bool,
}

/// Everything there is to say about a container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// As created.
    pub spec: ContainerSpec,
    /// As it is.
    pub state: State,
    /// Ids of execs that live or were not collected yet.
    pub exec_ids: Vec<String>,
    /// Program of process 1 (entrypoint or first argument).
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Path of the json-file log; empty with another driver.
    pub log_path: String,
    /// Path of the container's /etc/hostname on the host.
    pub hostname_path: String,
    /// Path of the container's /etc/hosts on the host.
    pub hosts_path: String,
    /// Path of the container's /etc/resolv.conf on the host.
    pub resolv_conf_path: String,
    /// Lower directories, colon separated, top first.
    pub graph_lower: String,
    /// Upper directory.
    pub graph_upper: String,
    /// Work directory.
    pub graph_work: String,
    /// AppArmor profile in force, or empty.
    pub apparmor_profile: String,
    /// Bytes in the writable layer and in the whole root, when asked for.
    pub size: Option<(u64, u64)>,
}

impl HealthStatus {
    /// Docker's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Status {
    /// Docker's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a process of the container lives.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}
