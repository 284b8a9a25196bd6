//! Where and how it runs: the part of a container that only the host can say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The host half of a container's configuration. Modes are kept in Docker's string form (`container:ID`, `host`, …).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v` lines: `source:target[:options]`.
    pub binds: Vec<String>,
    /// Where the client wrote the id.
    pub container_id_file: String,
    /// Log driver and options.
    pub log: LogConfig,
    /// `bridge`, `host`, `none`, `default`, `container:ID` or a network's name.
    pub network_mode: String,
    /// Published ports: container port to host addresses.
    pub port_bindings: PortMap,
    /// What to do when it ends.
    pub restart_policy: RestartPolicy,
    /// Remove it when it ends.
    pub auto_remove: bool,
    /// Size of the client's terminal at create: height, width.
    pub console_size: [u16; 2],
    /// `container[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// `--mount` requests.
    pub mounts: Vec<MountRequest>,
    /// Free key-value pairs for runtimes.
    pub annotations: BTreeMap<String, String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// `private`, `host` or empty for the default.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `host:address` lines for /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// Additional groups, names or numbers.
    pub group_add: Vec<String>,
    /// `private`, `shareable`, `none`, `host`, `container:ID` or empty.
    pub ipc_mode: String,
    /// Legacy links.
    pub links: Vec<String>,
    /// −1000 to 1000.
    pub oom_score_adj: i64,
    /// `host`, `container:ID` or empty.
    pub pid_mode: String,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Publish every exposed port.
    pub publish_all_ports: bool,
    /// Root file system read-only.
    pub readonly_rootfs: bool,
    /// `no-new-privileges`, `seccomp=…`, `apparmor=…`, `label=…`.
    pub security_opt: Vec<String>,
    /// Storage driver options.
    pub storage_opt: BTreeMap<String, String>,
    /// Target to mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty.
    pub uts_mode: String,
    /// `host` or empty.
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: i64,
    /// Namespaced kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Name of the OCI runtime; empty: the default.
    pub runtime: String,
    /// Windows only.
    pub isolation: String,
    /// Limits.
    pub resources: Resources,
    /// Paths hidden from the container; `None`: the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that cannot be written; `None`: the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Run a small init as process 1; `None`: the daemon's default.
    pub init: Option<bool>,
    /// Driver of volumes made on the way.
    pub volume_driver: String,
    /// Cgroup to use (`--cgroup`), unsupported beyond the empty string.
    pub cgroup: String,
}

/// Limits on what a container may use. 0 or empty: no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative CPU weight.
    pub cpu_shares: i64,
    /// Bytes.
    pub memory: i64,
    /// CPUs in units of 10⁻⁹.
    pub nano_cpus: i64,
    /// Parent cgroup; empty: the daemon's.
    pub cgroup_parent: String,
    /// 10 to 1000.
    pub blkio_weight: u16,
    /// Weight for each device.
    pub blkio_weight_device: Vec<WeightDevice>,
    /// Bytes a second.
    pub blkio_device_read_bps: Vec<DeviceRate>,
    /// Bytes a second.
    pub blkio_device_write_bps: Vec<DeviceRate>,
    /// Operations a second.
    pub blkio_device_read_iops: Vec<DeviceRate>,
    /// Operations a second.
    pub blkio_device_write_iops: Vec<DeviceRate>,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds in a period.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_realtime_period: i64,
    /// Microseconds.
    pub cpu_realtime_runtime: i64,
    /// `0-3,5`.
    pub cpuset_cpus: String,
    /// `0-1`.
    pub cpuset_mems: String,
    /// Devices to pass in.
    pub devices: Vec<DeviceMapping>,
    /// Rules as in the devices cgroup: `c 42:* rmw`.
    pub device_cgroup_rules: Vec<String>,
    /// GPU and CDI requests, verbatim; any request is refused for now.
    pub device_requests: Vec<serde_json::Value>,
    /// Bytes, soft.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; −1: no limit.
    pub memory_swap: i64,
    /// 0 to 100; `None`: the kernel's.
    pub memory_swappiness: Option<i64>,
    /// Do not kill on out of memory (cgroup v1).
    pub oom_kill_disable: Option<bool>,
    /// Processes; `None`, 0 and −1: no limit.
    pub pids_limit: Option<i64>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
}

/// A weight for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// Path of the device on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A rate for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// Path of the device on the host.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// A host device inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// Any of `r`, `w`, `m`.
    pub cgroup_permissions: String,
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// −1: unlimited.
    pub soft: i64,
    /// −1: unlimited.
    pub hard: i64,
}

/// Where the output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `json-file` or `none`; empty: the daemon's default.
    pub driver: String,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// Which rule.
    pub name: RestartPolicyName,
    /// For [`RestartPolicyName::OnFailure`]: how often; 0: always.
    pub maximum_retry_count: u32,
}

/// The rules of restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicyName {
    /// Never.
    #[default]
    No,
    /// Always, also at daemon start.
    Always,
    /// After an exit code other than 0.
    OnFailure,
    /// Always, but not at daemon start when a user had stopped it.
    UnlessStopped,
}

/// What a `--mount` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Which kind.
    pub kind: MountKind,
    /// Host path or volume name; empty for tmpfs and anonymous volumes.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Bind: propagation.
    pub propagation: BindPropagation,
    /// Bind: without the mounts below the source.
    pub non_recursive: bool,
    /// Bind: make a missing source directory.
    pub create_mountpoint: bool,
    /// Bind: only the top mount is read-only.
    pub read_only_non_recursive: bool,
    /// Bind: fail when the kernel cannot make all of it read-only.
    pub read_only_force_recursive: bool,
    /// Volume: do not copy the image's files in.
    pub no_copy: bool,
    /// Volume: labels of a volume made on the way.
    pub labels: BTreeMap<String, String>,
    /// Volume: directory inside the volume.
    pub subpath: String,
    /// Volume: driver; empty: local.
    pub driver: String,
    /// Volume: driver options.
    pub driver_options: BTreeMap<String, String>,
    /// Tmpfs: bytes; 0: the kernel's default.
    pub tmpfs_size: i64,
    /// Tmpfs: mode bits; 0: 1777.
    pub tmpfs_mode: u32,
    /// Tmpfs: further options as `[key, value]` or `[flag]`.
    pub tmpfs_options: Vec<Vec<String>>,
}

/// Kinds of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A host path.
    Bind,
    /// A named or anonymous volume.
    Volume,
    /// Memory.
    Tmpfs,
}

/// Mount propagation of a bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindPropagation {
    /// Docker's default.
    #[default]
    RPrivate,
    /// `private`.
    Private,
    /// `rshared`.
    RShared,
    /// `shared`.
    Shared,
    /// `rslave`.
    RSlave,
    /// `slave`.
    Slave,
}

/// Container port (`80/tcp`) to the host addresses that lead to it.
pub type PortMap = BTreeMap<PortSpec, Vec<PortBinding>>;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: can be exposed, not published.
    Sctp,
}

/// A port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortSpec {
    /// 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: PortProtocol,
}

/// A host address that leads to a container port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Empty: every address.
    pub host_ip: String,
    /// `8080`, a range `8000-8010`, or empty for any free port.
    pub host_port: String,
}

impl std::fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl From<PortSpec> for String {
    fn from(port: PortSpec) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for PortSpec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for PortSpec {
    type Err = String;

    /// Parses `80/tcp`, `53/udp` or `80` (TCP).
    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            "sctp" => PortProtocol::Sctp,
            other => return Err(format!("invalid proto: {other}")),
        };
        match port.parse::<u16>() {
            Ok(port) => Ok(Self { port, protocol }),
            Err(_) => Err(format!("invalid port specification: \"{text}\"")),
        }
    }
}

impl RestartPolicyName {
    /// Docker's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        }
    }
}

impl BindPropagation {
    /// The mount option's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RPrivate => "rprivate",
            Self::Private => "private",
            Self::RShared => "rshared",
            Self::Shared => "shared",
            Self::RSlave => "rslave",
            Self::Slave => "slave",
        }
    }
}
