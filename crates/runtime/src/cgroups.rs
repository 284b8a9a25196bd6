//! Limits as cgroup files, v1 and v2; device rules as v1 lines or a v2 program. Pure but for [`prepare_parent`] and [`remove`].

use std::io;
use std::path::Path;

use sampan_shim::plan::{CgroupDirectory, CgroupPlan};

use crate::host::Host;

/// What a container may use; 0 and `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: i64,
    /// Memory and swap together; −1: unlimited.
    pub memory_swap: i64,
    /// Bytes, soft.
    pub memory_reservation: i64,
    /// 0 to 100.
    pub swappiness: Option<i64>,
    /// v1: do not kill.
    pub oom_kill_disable: bool,
    /// 10⁻⁹ CPUs.
    pub nano_cpus: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds.
    pub cpu_quota: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// List of CPUs.
    pub cpuset_cpus: String,
    /// List of memory nodes.
    pub cpuset_mems: String,
    /// Processes; ≤ 0: unlimited.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: u16,
}

/// One device rule: `b`, `c` or `a`; numbers or any; rights of `rwm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `b`, `c` or `a`.
    pub kind: char,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`.
    pub rights: String,
}

impl DeviceRule {
    /// An allowed device.
    #[must_use]
    pub fn new(kind: char, major: Option<u32>, minor: Option<u32>, rights: &str) -> Self {
        Self { kind, major, minor, rights: rights.to_owned() }
    }

    fn line(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.rights)
    }
}

/// The devices of every container: nodes may be made, these few may be used.
#[must_use]
pub fn default_devices() -> Vec<DeviceRule> {
    let mut rules = vec![DeviceRule::new('c', None, None, "m"), DeviceRule::new('b', None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(DeviceRule::new('c', Some(major), Some(minor), "rwm"));
    }
    rules.push(DeviceRule::new('c', Some(136), None, "rwm"));
    rules
}

/// The cgroup of a container: directories, limits, devices. `path` is the cgroup's path in every hierarchy.
#[must_use]
pub fn plan(host: &Host, path: &str, limits: &Limits, devices: &[DeviceRule]) -> CgroupPlan {
    if host.unified {
        let directory = host.cgroup_directory("", path).display().to_string();
        let writes = v2_writes(limits);
        let directories = vec![CgroupDirectory { path: directory, writes, optional: false }];
        return CgroupPlan { unified: true, directories, device_program: crate::devices::program(devices) };
    }
    let mut directories: Vec<CgroupDirectory> = Vec::new();
    for (controller, _) in &host.controllers {
        let directory = host.cgroup_directory(controller, path).display().to_string();
        let writes = v1_writes(host, controller, limits, devices);
        match directories.iter_mut().find(|known| known.path == directory) {
            Some(known) => known.writes.extend(writes),
            None => directories.push(CgroupDirectory { path: directory, writes, optional: false }),
        }
    }
    CgroupPlan { unified: false, directories, device_program: Vec::new() }
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike, by value where it is shorter")]
fn put(writes: &mut Vec<(String, String)>, file: &str, value: impl ToString) {
    writes.push((file.to_owned(), value.to_string()));
}

fn v1_writes(host: &Host, controller: &str, limits: &Limits, devices: &[DeviceRule]) -> Vec<(String, String)> {
    let mut writes = Vec::new();
    let out = &mut writes;
    match controller {
        "devices" => {
            let everything = devices.iter().any(|rule| rule.kind == 'a');
            put(out, if everything { "devices.allow" } else { "devices.deny" }, "a");
            for rule in devices.iter().filter(|_| !everything) {
                put(out, "devices.allow", rule.line());
            }
        }
        "cpuset" => {
            let or = |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
            put(out, "cpuset.cpus", or(&limits.cpuset_cpus, &host.cpuset.0));
            put(out, "cpuset.mems", or(&limits.cpuset_mems, &host.cpuset.1));
        }
        _ => writes.extend(v1_limits(limits).into_iter().filter(|(of, ..)| *of == controller).map(|(_, file, value)| (file, value))),
    }
    writes
}

/// Controller, file and value of each v1 limit.
fn v1_limits(limits: &Limits) -> Vec<(&'static str, String, String)> {
    let mut out: Vec<(&'static str, String, String)> = Vec::new();
    let mut set = |controller: &'static str, file: &str, value: String| out.push((controller, file.to_owned(), value));
    if limits.memory > 0 {
        set("memory", "memory.limit_in_bytes", limits.memory.to_string());
    }
    if limits.memory_swap != 0 && limits.memory != 0 {
        set("memory", "memory.memsw.limit_in_bytes", limits.memory_swap.to_string());
    }
    if limits.memory_reservation > 0 {
        set("memory", "memory.soft_limit_in_bytes", limits.memory_reservation.to_string());
    }
    if let Some(swappiness) = limits.swappiness.filter(|value| *value >= 0) {
        set("memory", "memory.swappiness", swappiness.to_string());
    }
    if limits.oom_kill_disable {
        set("memory", "memory.oom_control", "1".to_owned());
    }
    if limits.cpu_shares > 0 {
        set("cpu", "cpu.shares", limits.cpu_shares.to_string());
    }
    let (quota, period) = quota(limits);
    if period != 0 {
        set("cpu", "cpu.cfs_period_us", period.to_string());
    }
    if quota != 0 {
        set("cpu", "cpu.cfs_quota_us", quota.to_string());
    }
    if let Some(pids) = limits.pids {
        set("pids", "pids.max", if pids > 0 { pids.to_string() } else { "max".to_owned() });
    }
    if limits.blkio_weight > 0 {
        set("blkio", "blkio.weight", limits.blkio_weight.to_string());
        set("blkio", "blkio.bfq.weight", limits.blkio_weight.to_string());
    }
    out
}

/// Quota and period in microseconds; 0: not set.
fn quota(limits: &Limits) -> (i64, i64) {
    if limits.nano_cpus > 0 { (limits.nano_cpus / 10_000, 100_000) } else { (limits.cpu_quota, limits.cpu_period) }
}

fn v2_writes(limits: &Limits) -> Vec<(String, String)> {
    let mut writes = Vec::new();
    let out = &mut writes;
    if limits.memory > 0 {
        put(out, "memory.max", limits.memory);
    }
    match limits.memory_swap {
        0 => {}
        -1 => put(out, "memory.swap.max", "max"),
        swap if limits.memory > 0 => put(out, "memory.swap.max", (swap - limits.memory).max(0)),
        _ => {}
    }
    if limits.memory_reservation > 0 {
        put(out, "memory.low", limits.memory_reservation);
    }
    if limits.cpu_shares > 0 {
        put(out, "cpu.weight", weight(limits.cpu_shares));
    }
    let (quota, period) = quota(limits);
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period > 0 { period } else { 100_000 };
        put(out, "cpu.max", format!("{quota} {period}"));
    }
    if !limits.cpuset_cpus.is_empty() {
        put(out, "cpuset.cpus", &limits.cpuset_cpus);
    }
    if !limits.cpuset_mems.is_empty() {
        put(out, "cpuset.mems", &limits.cpuset_mems);
    }
    if let Some(pids) = limits.pids {
        put(out, "pids.max", if pids > 0 { pids.to_string() } else { "max".to_owned() });
    }
    if limits.blkio_weight > 0 {
        put(out, "io.bfq.weight", limits.blkio_weight);
        put(out, "io.weight", 1 + (i64::from(limits.blkio_weight) - 10) * 9999 / 990);
    }
    writes
}

/// cpu.weight of v1 shares: 10^((l² + 125 l) / 612 − 7/34) with l = log2(shares), so that 1024 becomes 100.
fn weight(shares: i64) -> i64 {
    let shares = shares.clamp(2, 262_144);
    let log = f64::from(i32::try_from(shares).unwrap_or(1024)).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    let weight = 10_f64.powf(exponent).ceil();
    format!("{weight:.0}").parse::<i64>().unwrap_or(100).clamp(1, 10_000)
}

/// The files to write when limits of a running container change. On v1 raising and lowering need another order of the two memory
/// files, so both orders are given: the first that succeeds is right.
#[must_use]
pub fn update_writes(host: &Host, path: &str, limits: &Limits) -> Vec<(String, Vec<(String, String)>)> {
    if host.unified {
        return vec![(host.cgroup_directory("", path).display().to_string(), v2_writes(limits))];
    }
    let directory = |controller: &str| host.cgroup_directory(controller, path).display().to_string();
    let mut out = Vec::new();
    for (controller, file, value) in v1_limits(limits) {
        out.push((directory(controller), vec![(file, value)]));
    }
    for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
        if !value.is_empty() {
            out.push((directory("cpuset"), vec![(file.to_owned(), value.clone())]));
        }
    }
    out
}

/// Makes the parent of all containers' cgroups ready: controllers passed down, cpuset filled.
///
/// # Errors
/// When the directory cannot be made.
pub fn prepare_parent(host: &Host, parent: &str) -> io::Result<()> {
    if host.unified {
        let root = Path::new("/sys/fs/cgroup");
        let mut path = root.to_owned();
        for part in std::iter::once("").chain(parent.split('/').filter(|part| !part.is_empty())) {
            path.push(part);
            std::fs::create_dir_all(&path)?;
            let controllers = std::fs::read_to_string(path.join("cgroup.controllers"))?;
            for controller in controllers.split_whitespace() {
                // One by one: a single one that cannot be passed on must not keep the others.
                drop(std::fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")));
            }
        }
        return Ok(());
    }
    for (controller, _) in &host.controllers {
        let mut directory = host.cgroup_directory(controller, "");
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            directory.push(part);
            std::fs::create_dir_all(&directory)?;
            if controller == "cpuset" {
                // A new cpuset is empty, and so is all that is below an empty one.
                for (file, value) in [("cpuset.cpus", &host.cpuset.0), ("cpuset.mems", &host.cpuset.1)] {
                    let is_empty = std::fs::read_to_string(directory.join(file)).is_ok_and(|text| text.trim().is_empty());
                    if is_empty {
                        drop(std::fs::write(directory.join(file), value));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether the kernel offers weights of block traffic, seen at the ready parent.
#[must_use]
pub fn weighs_blocks(host: &Host, parent: &str) -> bool {
    let directory = host.cgroup_directory(if host.unified { "" } else { "blkio" }, parent);
    sampan_shim::apply::cgroup::BLOCK_WEIGHTS.iter().any(|file| directory.join(file).is_file())
}

/// Ids of the processes in a cgroup directory and below it. One that is gone has none.
#[must_use]
pub fn processes(directory: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// Removes a cgroup that holds nothing; one that holds something stays.
pub fn remove_empty(host: &Host, path: &str) {
    let own = |controller: &str| drop(std::fs::remove_dir(host.cgroup_directory(controller, path)));
    if host.unified {
        own("");
    }
    host.controllers.iter().for_each(|(controller, _)| own(controller));
}

/// Whether a cgroup is there, in any hierarchy.
#[must_use]
pub fn exists(host: &Host, path: &str) -> bool {
    let is_there = |controller: &str| host.cgroup_directory(controller, path).is_dir();
    if host.unified { is_there("") } else { host.controllers.iter().any(|(controller, _)| is_there(controller)) }
}

/// Removes a container's cgroups; one that still holds dying processes is tried again for a moment.
pub fn remove(host: &Host, path: &str) {
    let directories: Vec<_> = if host.unified {
        vec![host.cgroup_directory("", path)]
    } else {
        host.controllers.iter().map(|(controller, _)| host.cgroup_directory(controller, path)).collect()
    };
    for directory in directories {
        remove_tree(&directory, 200);
    }
}

fn remove_tree(directory: &Path, mut tries: u32) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path(), tries);
        }
    }
    let pause = sampan_base::Cancel::new();
    while let Err(error) = std::fs::remove_dir(directory) {
        if error.kind() != io::ErrorKind::ResourceBusy || tries == 0 {
            return;
        }
        tries -= 1;
        let _timed_out = pause.wait_timeout(std::time::Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(unified: bool) -> Host {
        let controllers = ["devices", "memory", "cpu", "cpuset", "pids"].map(|name| (name.to_owned(), format!("/cg/{name}").into())).into();
        Host {
            unified,
            controllers,
            cpuset: ("0-1".into(), "0".into()),
            capabilities: 0,
            kernel: (6, 1),
            cpus: 2,
            apparmor: false,
            memory: 1 << 30,
            filters: crate::seccomp::Filters::default(),
        }
    }

    fn limits() -> Limits {
        Limits { memory: 64 << 20, memory_swap: 128 << 20, nano_cpus: 500_000_000, cpu_shares: 1024, pids: Some(50), ..Limits::default() }
    }

    #[test]
    fn version_one() {
        let plan = plan(&host(false), "/sampan/x", &limits(), &default_devices());
        let writes = |path: &str| plan.directories.iter().find(|directory| directory.path == path).unwrap().writes.clone();
        let pair = |file: &str, value: &str| (file.to_owned(), value.to_owned());
        assert_eq!(
            writes("/cg/memory/sampan/x"),
            [pair("memory.limit_in_bytes", "67108864"), pair("memory.memsw.limit_in_bytes", "134217728")]
        );
        assert_eq!(writes("/cg/cpu/sampan/x")[1..], [pair("cpu.cfs_period_us", "100000"), pair("cpu.cfs_quota_us", "50000")]);
        assert_eq!(writes("/cg/cpuset/sampan/x")[0], pair("cpuset.cpus", "0-1"));
        assert_eq!(writes("/cg/devices/sampan/x")[..2], [pair("devices.deny", "a"), pair("devices.allow", "c *:* m")]);
    }

    #[test]
    fn version_two() {
        let plan = plan(&host(true), "/sampan/x", &limits(), &default_devices());
        let writes: Vec<_> = plan.directories[0].writes.iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(writes, ["memory.max=67108864", "memory.swap.max=67108864", "cpu.weight=100", "cpu.max=50000 100000", "pids.max=50"]);
        assert!(!plan.device_program.is_empty());
    }

    #[test]
    fn weights_follow_the_new_formula() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 100, 10_000));
    }
}
