//! Planning: options and facts of the host become the flat plan that a shim applies. Pure.

use sampan_shim::plan::{DeviceNode, MountSource, MountStep, Plan, ProcessPlan};
use sampan_sys::mount::Attributes;
use sampan_sys::process::NewNamespaces;

use crate::caps;
use crate::cgroups::{self, DeviceRule};
use crate::host::Host;
use crate::options::{Namespace, Options, Seccomp};
use crate::seccomp::{self, Facts, Profile, ProfileError};

/// A wish that cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The seccomp profile is wrong.
    #[error(transparent)]
    Seccomp(#[from] ProfileError),
    /// A kernel parameter that is not the container's own.
    #[error("sysctl \"{0}\" {1}")]
    Sysctl(String, &'static str),
}

impl sampan_base::Failure for PlanError {
    fn kind(&self) -> sampan_base::ErrorKind {
        sampan_base::ErrorKind::Invalid
    }
}

/// Hidden by default.
pub const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only by default.
pub const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where the small init stands in a container.
const INIT: &str = "/sbin/docker-init";

/// Plans a container.
///
/// # Errors
/// [`PlanError`]: nothing was done.
pub fn container(options: &Options, host: &Host) -> Result<Plan, PlanError> {
    let mut namespaces = NewNamespaces::MOUNT;
    for (source, flag) in [(options.pid, NewNamespaces::PID), (options.ipc, NewNamespaces::IPC), (options.uts, NewNamespaces::UTS)] {
        if source == Namespace::Private {
            namespaces = namespaces.union(flag);
        }
    }
    let joins = [options.pid, options.ipc, options.uts, options.net].iter().filter(|source| **source == Namespace::Join).count();
    let mut process = process(options, host)?;
    if options.init.is_some() {
        let mut arguments = vec![INIT.to_owned(), "--".to_owned()];
        arguments.append(&mut process.arguments);
        process.arguments = arguments;
    }
    let own_uts = options.uts == Namespace::Private;
    let mut rules = if options.privileged { vec![DeviceRule::new('a', None, None, "rwm")] } else { cgroups::default_devices() };
    // Who may use all devices needs no rule for each.
    let listed = if options.privileged { &[] } else { options.devices.as_slice() };
    rules.extend(listed.iter().map(|device| {
        let kind = if device.mode & 0o170_000 == 0o060_000 { 'b' } else { 'c' };
        DeviceRule::new(kind, Some(device.major), Some(device.minor), &device.rights)
    }));
    rules.extend(options.device_rules.iter().cloned());
    let paths = |given: &Option<Vec<String>>, default: &[&str]| match given {
        Some(list) => list.clone(),
        None if options.privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let mut readonly = paths(&options.readonly, &READONLY);
    if !host.unified && !options.privileged && !options.writable_cgroups {
        // The tmpfs that holds the v1 hierarchies' mount points.
        readonly.push("/sys/fs/cgroup".into());
    }
    Ok(Plan {
        id: options.id.clone(),
        process,
        namespaces: namespaces.bits(),
        cgroup_namespace: options.cgroup_private,
        joins: u32::try_from(joins).unwrap_or(0),
        // Whoever joins another's IPC namespace shares its /dev/shm.
        given: u32::from(options.ipc == Namespace::Join),
        join_pid: options.pid == Namespace::Join,
        hostname: if own_uts { options.hostname.clone() } else { String::new() },
        domainname: if own_uts { options.domainname.clone() } else { String::new() },
        sysctls: sysctls(options)?,
        root_place: options.root_place.clone(),
        root_slave: true,
        mounts: mounts(options, host),
        devices: device_nodes(options),
        links: links(),
        masked: paths(&options.masked, &MASKED),
        readonly,
        root_readonly: options.readonly_root,
        create_cwd: true,
        cgroup: cgroups::plan(host, &options.cgroup, &options.limits, &rules),
        log: options.log.clone(),
        record: options.record.clone(),
        socket: options.socket.clone(),
    })
}

/// Plans a process with the confinement of a container: its first or a further one.
///
/// # Errors
/// [`PlanError`].
pub fn process(options: &Options, host: &Host) -> Result<ProcessPlan, PlanError> {
    let mask = options.capabilities & host.capabilities;
    // Only root has them at once; others may gain them through set-user-id programs.
    let effective = if options.user.uid == 0 { mask } else { 0 };
    Ok(ProcessPlan {
        arguments: options.arguments.clone(),
        environment: options.environment.clone(),
        cwd: options.cwd.clone(),
        uid: options.user.uid,
        gid: options.user.gid,
        groups: options.user.groups.clone(),
        umask: 0o022,
        bounding: mask,
        permitted: effective,
        effective,
        inheritable: 0,
        ambient: 0,
        no_new_privileges: options.no_new_privileges,
        limits: options.ulimits.iter().map(|(number, soft, hard)| (*number, (*soft, *hard))).collect(),
        oom_score_adj: options.oom_score_adj,
        apparmor: options.apparmor.clone(),
        seccomp: filter(options, host)?,
        terminal: options.terminal,
        width: options.size.0,
        height: options.size.1,
        stdin: options.stdin,
        // A terminal stays open: who detaches from it does not end the process.
        stdin_once: options.stdin_once && !options.terminal,
    })
}

fn filter(options: &Options, host: &Host) -> Result<Option<Vec<u8>>, PlanError> {
    let facts = || Facts {
        capabilities: caps::names(options.capabilities),
        architecture: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.into(),
        kernel: host.kernel,
    };
    Ok(match &options.seccomp {
        Seccomp::Unconfined => None,
        Seccomp::Default if options.privileged => None,
        Seccomp::Default => {
            let compile = || seccomp::compile(&seccomp::default_profile(&facts())).bytes();
            Some(host.filters.get(options.capabilities, compile))
        }
        Seccomp::Json(json) => Some(seccomp::compile(&Profile::parse(json, &facts())?).bytes()),
    })
}

/// Parameters that live in a namespace of the container, others would change the host.
fn sysctls(options: &Options) -> Result<Vec<(String, String)>, PlanError> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut out = Vec::new();
    if options.net == Namespace::Join && !options.sysctls.iter().any(|(key, _)| key == "net.ipv4.ip_unprivileged_port_start") {
        out.push(("net/ipv4/ip_unprivileged_port_start".to_owned(), "0".to_owned()));
    }
    if options.net == Namespace::Join && !options.sysctls.iter().any(|(key, _)| key == "net.ipv4.ping_group_range") {
        out.push(("net/ipv4/ping_group_range".to_owned(), "0 2147483647".to_owned()));
    }
    for (key, value) in &options.sysctls {
        let key = key.replace('/', ".");
        if key.starts_with("net.") {
            if options.net == Namespace::Host {
                return Err(PlanError::Sysctl(key, "not allowed in host network namespace"));
            }
        } else if IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
            if options.ipc == Namespace::Host {
                return Err(PlanError::Sysctl(key, "is not allowed in the hosts ipc namespace"));
            }
        } else if key != "kernel.domainname" || options.uts == Namespace::Host {
            return Err(PlanError::Sysctl(key, "is not in a separate kernel namespace"));
        }
        out.push((key.replace('.', "/"), value.clone()));
    }
    Ok(out)
}

fn new_filesystem(target: &str, kind: &str, options: &[(&str, &str)], attributes: Attributes) -> MountStep {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let source = MountSource::New { kind: kind.to_owned(), options };
    MountStep { source, target: target.to_owned(), attributes: attributes.bits(), ..MountStep::default() }
}

fn mounts(options: &Options, host: &Host) -> Vec<MountStep> {
    let (nosuid, nodev, noexec) = (Attributes::NOSUID, Attributes::NODEV, Attributes::NOEXEC);
    let quiet = nosuid.union(nodev).union(noexec);
    let readonly = if options.privileged { Attributes::empty() } else { Attributes::RDONLY };
    let mut steps = vec![
        new_filesystem("/proc", "proc", &[], quiet),
        new_filesystem("/dev", "tmpfs", &[("source", "tmpfs"), ("mode", "755"), ("size", "65536k")], nosuid.union(Attributes::STRICTATIME)),
        new_filesystem(
            "/dev/pts",
            "devpts",
            &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            nosuid.union(noexec),
        ),
        new_filesystem("/sys", "sysfs", &[], quiet.union(readonly)),
    ];
    steps.extend(cgroup_mounts(options, host, quiet));
    steps.push(new_filesystem("/dev/mqueue", "mqueue", &[], quiet));
    if !options.ipc_none && options.ipc == Namespace::Private {
        let size = if options.shm_size > 0 { options.shm_size } else { 64 << 20 };
        steps.push(new_filesystem("/dev/shm", "tmpfs", &[("source", "shm"), ("mode", "1777"), ("size", &size.to_string())], quiet));
    }
    let shared = match options.ipc {
        Namespace::Private => None,
        Namespace::Host => Some(MountSource::Bind { path: "/dev/shm".into(), recursive: true }),
        Namespace::Join => Some(MountSource::Given { number: 0 }),
    };
    if let Some(source) = shared {
        steps.push(MountStep { source, target: "/dev/shm".into(), attributes: quiet.bits(), ..MountStep::default() });
    }
    steps.extend(options.mounts.iter().cloned());
    if let Some(init) = &options.init {
        steps.push(MountStep {
            source: MountSource::Bind { path: init.clone(), recursive: false },
            target: INIT.into(),
            attributes: Attributes::RDONLY.bits(),
            ..MountStep::default()
        });
    }
    steps
}

/// The container's own cgroups, read-only: v2 as a file system, v1 as binds of its directories.
fn cgroup_mounts(options: &Options, host: &Host, quiet: Attributes) -> Vec<MountStep> {
    let readonly = if options.privileged || options.writable_cgroups { Attributes::empty() } else { Attributes::RDONLY };
    let attributes = quiet.union(readonly);
    if host.unified {
        if options.cgroup_private {
            return vec![new_filesystem("/sys/fs/cgroup", "cgroup2", &[("nsdelegate", "")], attributes)];
        }
        let source = MountSource::Bind { path: "/sys/fs/cgroup".into(), recursive: true };
        return vec![MountStep {
            source,
            target: "/sys/fs/cgroup".into(),
            attributes: attributes.bits(),
            recursive: true,
            ..MountStep::default()
        }];
    }
    let mut steps = vec![new_filesystem("/sys/fs/cgroup", "tmpfs", &[("source", "tmpfs"), ("mode", "755")], quiet)];
    let mut seen = Vec::new();
    for (controller, base) in &host.controllers {
        if seen.contains(base) {
            continue;
        }
        seen.push(base.clone());
        let path = host.cgroup_directory(controller, &options.cgroup).display().to_string();
        let name = base.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = MountSource::Bind { path, recursive: false };
        let target = format!("/sys/fs/cgroup/{name}");
        steps.push(MountStep { source, target, attributes: attributes.bits(), ..MountStep::default() });
    }
    steps
}

fn device_nodes(options: &Options) -> Vec<DeviceNode> {
    let character = 0o020_666;
    let node = |path: &str, major, minor| DeviceNode { path: path.to_owned(), mode: character, major, minor, uid: 0, gid: 0 };
    let mut nodes = vec![
        node("/dev/null", 1, 3),
        node("/dev/random", 1, 8),
        node("/dev/full", 1, 7),
        node("/dev/tty", 5, 0),
        node("/dev/zero", 1, 5),
        node("/dev/urandom", 1, 9),
    ];
    nodes.extend(options.devices.iter().map(|device| DeviceNode {
        path: device.path.clone(),
        mode: device.mode,
        major: device.major,
        minor: device.minor,
        uid: device.uid,
        gid: device.gid,
    }));
    nodes
}

fn links() -> Vec<(String, String)> {
    [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ]
    .map(|(name, target)| (name.to_owned(), target.to_owned()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            unified: true,
            controllers: Vec::new(),
            cpuset: Default::default(),
            capabilities: caps::ALL,
            kernel: (6, 1),
            cpus: 2,
            apparmor: false,
            memory: 1 << 30,
            filters: crate::seccomp::Filters::default(),
        }
    }

    #[test]
    fn an_exec_is_confined_like_process_one() {
        let options = Options { capabilities: 0xa804_25fb, no_new_privileges: false, net: Namespace::Join, ..Options::default() };
        let plan = container(&options, &host()).unwrap();
        assert_eq!(plan.process, process(&options, &host()).unwrap());
        assert!(plan.process.seccomp.is_some());
    }

    #[test]
    fn a_user_has_no_effective_capabilities() {
        let options = Options { capabilities: 1, user: crate::users::User { uid: 5, ..Default::default() }, ..Options::default() };
        let plan = process(&options, &host()).unwrap();
        assert_eq!((plan.bounding, plan.effective, plan.permitted), (1, 0, 0));
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        let options = Options { sysctls: vec![("kernel.panic".into(), "1".into())], net: Namespace::Join, ..Options::default() };
        assert_eq!(container(&options, &host()).unwrap_err().to_string(), "sysctl \"kernel.panic\" is not in a separate kernel namespace");
    }

    #[test]
    fn privileged_hides_nothing() {
        let plan = container(&Options { privileged: true, ..Options::default() }, &host()).unwrap();
        assert!(plan.masked.is_empty() && plan.readonly.is_empty() && plan.process.seccomp.is_none());
    }
}
