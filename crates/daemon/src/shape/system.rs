//! `info`, `version`, events, counters.

use sampan_base::Event;
use sampan_engine::{Counters, Facts};
use sampan_wire::{Json, object};

use crate::{API, MIN_API, VERSION};

fn api((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// Go's name of this machine's architecture.
fn arch(facts: &Facts) -> &str {
    match facts.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The document of version.
pub(crate) fn version(facts: &Facts, own: &str) -> Json {
    let details = object! {
        "ApiVersion": api(API), "Arch": arch(facts), "BuildTime": "", "Experimental": "false", "GitCommit": "", "GoVersion": "",
        "KernelVersion": facts.kernel.clone(), "MinAPIVersion": api(MIN_API), "Os": "linux",
    };
    let components = [
        object! { "Name": "Engine", "Version": VERSION, "Details": details },
        object! { "Name": "sampan", "Version": own, "Details": object! { "GitCommit": "" } },
    ];
    object! {
        "Platform": object! { "Name": "sampan" },
        "Components": Json::Array(components.into()),
        "Version": VERSION,
        "ApiVersion": api(API),
        "MinAPIVersion": api(MIN_API),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch(facts),
        "KernelVersion": facts.kernel.clone(),
        "BuildTime": "",
    }
}

/// The document of info.
pub(crate) fn info(facts: &Facts) -> Json {
    let [all, running, paused, stopped] = facts.containers;
    let empty = || Json::Array(Vec::new());
    let index = object! { "Name": "docker.io", "Mirrors": empty(), "Secure": true, "Official": true };
    let mut security = vec!["name=seccomp,profile=builtin".to_owned()];
    if facts.apparmor {
        security.insert(0, "name=apparmor".into());
    }
    if facts.cgroup_version == 2 {
        security.push("name=cgroupns".into());
    }
    let mut pairs = object! {
        "ID": facts.id.clone(),
        "Containers": all,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": facts.images,
        "Driver": "overlay2",
        "DriverStatus": Json::list([Json::list(["Store", "sampan layers"])]),
        "Plugins": object! { "Volume": Json::list(["local"]), "Network": Json::list(["bridge", "host", "null"]), "Authorization": Json::NULL, "Log": Json::list(["json-file"]) },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": facts.forwarding,
        "Debug": false,
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        "OomKillDisable": facts.cgroup_version == 1,
        "NGoroutines": std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": facts.cgroup_version.to_string(),
        "NEventsListener": 0,
        "KernelVersion": facts.kernel.clone(),
        "OperatingSystem": facts.operating_system.clone(),
        "OSVersion": facts.os_version.clone(),
        "OSType": "linux",
        "Architecture": facts.architecture.clone(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": object! { "IndexConfigs": object! { "docker.io": index }, "InsecureRegistryCIDRs": Json::list(["127.0.0.0/8", "::1/128"]), "Mirrors": Json::NULL },
    }
    .pairs();
    let rest = object! {
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "GenericResources": Json::NULL,
        "DockerRootDir": facts.root.clone(),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": facts.name.clone(),
        "Labels": empty(),
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": object! { "runc": object! { "path": "sampan" } },
        "DefaultRuntime": "runc",
        "Swarm": object! { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": Json::NULL },
        "LiveRestoreEnabled": facts.live_restore,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": object! { "ID": "" },
        "RuncCommit": object! { "ID": "" },
        "InitCommit": object! { "ID": "" },
        "SecurityOptions": Json::list(security),
        "CDISpecDirs": empty(),
        "Warnings": Json::list_or_null(facts.warnings.iter().cloned()),
    };
    if let Json::Object(rest) = rest {
        pairs.extend(rest);
    }
    Json::Object(pairs)
}

/// One event.
pub(crate) fn event(event: &Event) -> Json {
    let mut attributes: Vec<(String, String)> = event.attributes.clone();
    attributes.sort();
    let actor = object! { "ID": event.id.clone(), "Attributes": Json::map(attributes) };
    let mut pairs: Vec<(String, Json)> = Vec::new();
    if matches!(event.kind.name(), "container" | "image") {
        pairs.push(("status".into(), event.action.clone().into()));
        pairs.push(("id".into(), event.id.clone().into()));
        if let Some((_, image)) = event.attributes.iter().find(|(key, _)| key == "image") {
            pairs.push(("from".into(), image.clone().into()));
        }
    }
    pairs.push(("Type".into(), event.kind.name().into()));
    pairs.push(("Action".into(), event.action.clone().into()));
    pairs.push(("Actor".into(), actor));
    pairs.push(("scope".into(), "local".into()));
    pairs.push(("time".into(), (event.time_nano / 1_000_000_000).into()));
    pairs.push(("timeNano".into(), event.time_nano.into()));
    Json::Object(pairs)
}

fn cpu(counters: &Counters) -> Json {
    object! {
        "cpu_usage": object! { "total_usage": counters.cpu[0], "usage_in_kernelmode": counters.cpu[1], "usage_in_usermode": counters.cpu[2] },
        "system_cpu_usage": counters.system_cpu,
        "online_cpus": counters.online_cpus,
        "throttling_data": object! { "periods": counters.throttling[0], "throttled_periods": counters.throttling[1], "throttled_time": counters.throttling[2] },
    }
}

/// One sample of stats, with the one before it.
pub(crate) fn stats(id: &str, name: &str, now: Option<&Counters>, before: Option<&Counters>, times: (i64, i64)) -> Json {
    let none = Counters::default();
    let (sample, earlier) = (now.unwrap_or(&none), before.unwrap_or(&none));
    let networks = sample.networks.iter().map(|network| {
        let [rx_bytes, rx_packets, rx_errors, rx_dropped] = network.received;
        let [tx_bytes, tx_packets, tx_errors, tx_dropped] = network.sent;
        let shown = object! {
            "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
            "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
        };
        (network.name.clone(), shown)
    });
    let blocks = sample.blocks.iter().flat_map(|(major, minor, read, written)| {
        let row = |operation: &str, value: u64| object! { "major": *major, "minor": *minor, "op": operation, "value": value };
        [row("read", *read), row("write", *written)]
    });
    object! {
        "name": format!("/{name}"),
        "id": id,
        "read": super::time(times.0),
        "preread": super::time(times.1),
        "pids_stats": object! { "current": sample.pids, "limit": sample.pids_limit },
        "num_procs": 0,
        "storage_stats": Json::Object(Vec::new()),
        "cpu_stats": cpu(sample),
        "precpu_stats": cpu(earlier),
        "memory_stats": object! { "usage": sample.memory, "max_usage": sample.memory_max, "stats": Json::map(sample.memory_stats.iter().cloned()), "limit": sample.memory_limit },
        "blkio_stats": object! { "io_service_bytes_recursive": Json::Array(blocks.collect()), "io_serviced_recursive": Json::NULL },
        "networks": Json::map(networks),
    }
}
