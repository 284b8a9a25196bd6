//! What a container has used: CPU, memory, processes, blocks, packets.

use std::fs;
use std::path::Path;

use sampan_runtime::Host;

/// Counters of one network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Its name in the container.
    pub name: String,
    /// Bytes, packets, errors, dropped: received.
    pub received: [u64; 4],
    /// Bytes, packets, errors, dropped: sent.
    pub sent: [u64; 4],
}

/// Counters of a container at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of cgroup v2.
    pub unified: bool,
    /// Nanoseconds of CPU, all, in the kernel, in programs.
    pub cpu: [u64; 3],
    /// Nanoseconds of CPU of the whole host.
    pub system_cpu: u64,
    /// Processors online.
    pub online_cpus: u32,
    /// Periods, throttled periods, throttled nanoseconds.
    pub throttling: [u64; 3],
    /// How often memory ran out (v2).
    pub memory_failures: u64,
    /// Bytes used, with caches.
    pub memory: u64,
    /// The most it was (v1).
    pub memory_max: u64,
    /// Bytes it may use.
    pub memory_limit: u64,
    /// Kernel's statistics by name.
    pub memory_stats: Vec<(String, u64)>,
    /// Processes and threads.
    pub pids: u64,
    /// How many there may be; no limit: 0, on v2 the greatest number.
    pub pids_limit: u64,
    /// Bytes read and written, by device: major, minor, read, written.
    pub blocks: Vec<(u64, u64, u64, u64)>,
    /// Interfaces.
    pub networks: Vec<NetworkCounters>,
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A limit of v2, where none is the greatest number.
fn limit(path: &Path) -> u64 {
    fs::read_to_string(path).map_or(0, |text| text.trim().parse().unwrap_or(u64::MAX))
}

fn table(path: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn find(table: &[(String, u64)], key: &str) -> u64 {
    table.iter().find(|(name, _)| name == key).map_or(0, |(_, value)| *value)
}

impl Counters {
    /// Reads the counters of a cgroup, and of the network namespace of a process in it (0: none).
    #[must_use]
    pub fn read(host: &Host, cgroup: &str, pid: u32) -> Self {
        let mut counters = if host.unified { v2(host, cgroup) } else { v1(host, cgroup) };
        counters.online_cpus = host.cpus;
        counters.system_cpu = system_cpu();
        if counters.memory_limit == 0 || counters.memory_limit > host.memory {
            counters.memory_limit = host.memory;
        }
        if pid != 0 {
            counters.networks = networks(pid);
        }
        counters
    }
}

fn v1(host: &Host, cgroup: &str) -> Counters {
    let path = |controller: &str, file: &str| host.cgroup_directory(controller, cgroup).join(file);
    let throttle = table(&path("cpu", "cpu.stat"));
    let mut blocks: Vec<(u64, u64, u64, u64)> = Vec::new();
    let text = fs::read_to_string(path("blkio", "blkio.throttle.io_service_bytes")).unwrap_or_default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, operation, value] = words[..] else { continue };
        let (Some((major, minor)), Ok(value)) = (device.split_once(':'), value.parse::<u64>()) else { continue };
        let key = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
        let index = blocks.iter().position(|block| (block.0, block.1) == key).unwrap_or_else(|| {
            blocks.push((key.0, key.1, 0, 0));
            blocks.len() - 1
        });
        match operation {
            "Read" => blocks[index].2 = value,
            "Write" => blocks[index].3 = value,
            _ => {}
        }
    }
    Counters {
        cpu: [
            number(&path("cpuacct", "cpuacct.usage")),
            number(&path("cpuacct", "cpuacct.usage_sys")),
            number(&path("cpuacct", "cpuacct.usage_user")),
        ],
        throttling: [find(&throttle, "nr_periods"), find(&throttle, "nr_throttled"), find(&throttle, "throttled_time")],
        memory: number(&path("memory", "memory.usage_in_bytes")),
        memory_max: number(&path("memory", "memory.max_usage_in_bytes")),
        memory_limit: number(&path("memory", "memory.limit_in_bytes")),
        memory_stats: table(&path("memory", "memory.stat")),
        pids: number(&path("pids", "pids.current")),
        pids_limit: number(&path("pids", "pids.max")),
        blocks,
        ..Counters::default()
    }
}

fn v2(host: &Host, cgroup: &str) -> Counters {
    let path = |file: &str| host.cgroup_directory("", cgroup).join(file);
    let cpu = table(&path("cpu.stat"));
    let nanoseconds = |key: &str| find(&cpu, key) * 1000;
    let text = fs::read_to_string(path("io.stat")).unwrap_or_default();
    let blocks = text.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let field = |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok()).unwrap_or(0);
        Some((major.parse().ok()?, minor.parse().ok()?, field("rbytes="), field("wbytes=")))
    });
    Counters {
        unified: true,
        memory_failures: find(&table(&path("memory.events")), "oom"),
        cpu: [nanoseconds("usage_usec"), nanoseconds("system_usec"), nanoseconds("user_usec")],
        throttling: [find(&cpu, "nr_periods"), find(&cpu, "nr_throttled"), nanoseconds("throttled_usec")],
        memory: number(&path("memory.current")),
        memory_limit: number(&path("memory.max")),
        memory_stats: table(&path("memory.stat")),
        pids: number(&path("pids.current")),
        pids_limit: limit(&path("pids.max")),
        blocks: blocks.collect(),
        ..Counters::default()
    }
}

/// Nanoseconds that all processors spent, idle ones included (/proc/stat counts hundredths of seconds).
fn system_cpu() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: u64 =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

fn networks(pid: u32) -> Vec<NetworkCounters> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let counters = NetworkCounters {
            name: name.trim().to_owned(),
            received: numbers.get(0..4)?.try_into().ok()?,
            sent: numbers.get(8..12)?.try_into().ok()?,
        };
        (counters.name != "lo").then_some(counters)
    };
    text.lines().filter_map(one).collect()
}
