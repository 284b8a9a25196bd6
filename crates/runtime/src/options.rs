//! What a container's process is to be, resolved but not yet planned: the input of [`crate::plan::container`].

pub use sampan_shim::plan::{LogPlan, MountSource, MountStep};

use crate::cgroups::{DeviceRule, Limits};
use crate::users::User;

/// Where a namespace comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's: its descriptor comes with the plan.
    Join,
}

/// Which seccomp filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The built-in profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A user's profile, as JSON.
    Json(String),
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path in the container.
    pub path: String,
    /// `S_IFCHR` or `S_IFBLK` and permission bits.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of `r`, `w`, `m`.
    pub rights: String,
}

/// A container's process and its confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The container.
    pub id: String,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Environment, complete.
    pub environment: Vec<String>,
    /// Working directory; empty: `/`.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// With a terminal.
    pub terminal: bool,
    /// Its size: width, height; 0: unknown.
    pub size: (u16, u16),
    /// Standard input is a pipe.
    pub stdin: bool,
    /// … that closes with its first writer.
    pub stdin_once: bool,
    /// Host name.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// All devices and rights.
    pub privileged: bool,
    /// Capability mask.
    pub capabilities: u64,
    /// No set-user-id.
    pub no_new_privileges: bool,
    /// Filter.
    pub seccomp: Seccomp,
    /// AppArmor profile; empty: none.
    pub apparmor: String,
    /// Root file system read-only.
    pub readonly_root: bool,
    /// `None`: the default list.
    pub masked: Option<Vec<String>>,
    /// `None`: the default list.
    pub readonly: Option<Vec<String>>,
    /// Cgroup mount can be written.
    pub writable_cgroups: bool,
    /// Process ids.
    pub pid: Namespace,
    /// IPC.
    pub ipc: Namespace,
    /// No /dev/shm at all.
    pub ipc_none: bool,
    /// Host name.
    pub uts: Namespace,
    /// Network: never `Private`, the sandbox makes it; `Join` or `Host`.
    pub net: Namespace,
    /// A cgroup namespace of its own.
    pub cgroup_private: bool,
    /// Mounts after the default ones, in order.
    pub mounts: Vec<MountStep>,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// Devices beyond the default ones.
    pub devices: Vec<Device>,
    /// Rules beyond the default ones.
    pub device_rules: Vec<DeviceRule>,
    /// Limits.
    pub limits: Limits,
    /// `RLIMIT_*` number, soft, hard.
    pub ulimits: Vec<(u32, u64, u64)>,
    /// −1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Key (with dots) to value.
    pub sysctls: Vec<(String, String)>,
    /// Path of the small init on the host; `None`: none.
    pub init: Option<String>,
    /// Log.
    pub log: Option<LogPlan>,
    /// Exit record.
    pub record: String,
    /// Shim's socket.
    pub socket: String,
    /// An empty directory for the root.
    pub root_place: String,
    /// The cgroup's path in every hierarchy.
    pub cgroup: String,
}
