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
pub(crate) fn info(facts: &Facts, api: (u32, u32)) -> Json {
    let [all, running, paused, stopped] = facts.containers;
    let mut pairs = object! {
        "ID": facts.id.clone(),
        "Containers": all,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": facts.images,
        "Driver": "overlay2",
        "DriverStatus": Json::list([Json::list(["Store", "sampan layers"])]),
        "Plugins": object! { "Volume": Json::list(["local"]), "Network": Json::list(["bridge", "host", "null"]), "Authorization": Json::NULL, "Log": Json::list(["json-file", "local"]) },
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
        "RegistryConfig": registries(facts),
    }
    .pairs();
    pairs.extend(more_info(facts).pairs());
    if api < (1, 50) {
        // Older clients look for them; they were never true since.
        pairs.extend(["BridgeNfIptables", "BridgeNfIp6tables"].map(|key| (key.to_owned(), false.into())));
    }
    Json::Object(pairs)
}

/// The second half of info: the host's size, the engine's parts.
fn more_info(facts: &Facts) -> Json {
    let empty = || Json::Array(Vec::new());
    let mut security = vec!["name=seccomp,profile=builtin".to_owned()];
    if facts.apparmor {
        security.insert(0, "name=apparmor".into());
    }
    if facts.cgroup_version == 2 {
        security.push("name=cgroupns".into());
    }
    object! {
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
    }
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

fn cpu(counters: Option<&Counters>) -> Json {
    let none = Counters::default();
    let shown = counters.unwrap_or(&none);
    let mut pairs = object! {
        "cpu_usage": object! { "total_usage": shown.cpu[0], "usage_in_kernelmode": shown.cpu[1], "usage_in_usermode": shown.cpu[2] },
    }
    .pairs();
    if counters.is_some() {
        pairs.push(("system_cpu_usage".into(), shown.system_cpu.into()));
        pairs.push(("online_cpus".into(), shown.online_cpus.into()));
    }
    let throttling =
        object! { "periods": shown.throttling[0], "throttled_periods": shown.throttling[1], "throttled_time": shown.throttling[2] };
    pairs.push(("throttling_data".into(), throttling));
    Json::Object(pairs)
}

fn blocks(counters: Option<&Counters>) -> Json {
    let rows = counters.map_or(Json::NULL, |counters| {
        let rows = counters.blocks.iter().flat_map(|(major, minor, read, written)| {
            let row = |operation: &str, value: u64| object! { "major": *major, "minor": *minor, "op": operation, "value": value };
            [row("read", *read), row("write", *written)]
        });
        let rows: Vec<Json> = rows.collect();
        if rows.is_empty() && counters.unified { Json::NULL } else { Json::Array(rows) }
    });
    // cgroup v2 counts bytes alone.
    let empty = || if counters.is_some_and(|counters| !counters.unified) { Json::Array(Vec::new()) } else { Json::NULL };
    let names = ["io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors"];
    let mut pairs = vec![("io_service_bytes_recursive".to_owned(), rows)];
    pairs.extend(names.map(|name| (format!("{name}_recursive"), empty())));
    Json::Object(pairs)
}

fn memory(counters: Option<&Counters>) -> Json {
    let Some(counters) = counters else { return Json::Object(Vec::new()) };
    let mut pairs = vec![("usage".to_owned(), counters.memory.into())];
    if counters.memory_max != 0 {
        pairs.push(("max_usage".into(), counters.memory_max.into()));
    }
    pairs.push(("stats".into(), Json::map(counters.memory_stats.iter().cloned())));
    if counters.memory_failures != 0 {
        pairs.push(("failcnt".into(), counters.memory_failures.into()));
    }
    pairs.push(("limit".into(), counters.memory_limit.into()));
    Json::Object(pairs)
}

fn pids(counters: Option<&Counters>) -> Json {
    let Some(counters) = counters else { return Json::Object(Vec::new()) };
    let mut pairs = vec![("current".to_owned(), counters.pids.into())];
    if counters.pids_limit != 0 {
        pairs.push(("limit".into(), counters.pids_limit.into()));
    }
    Json::Object(pairs)
}

/// One sample of stats, with the one before it. Without a sample the container does not run.
pub(crate) fn stats(id: &str, name: &str, now: Option<&Counters>, before: Option<&Counters>, times: (i64, i64)) -> Json {
    let mut pairs = object! {
        "name": format!("/{name}"),
        "id": id,
        "read": super::time(times.0),
        "preread": super::time(times.1),
        "pids_stats": pids(now),
        "blkio_stats": blocks(now),
        "num_procs": 0,
        "storage_stats": Json::Object(Vec::new()),
        "cpu_stats": cpu(now),
        "precpu_stats": cpu(before),
        "memory_stats": memory(now),
    }
    .pairs();
    let networks: Vec<(String, Json)> = now
        .into_iter()
        .flat_map(|counters| &counters.networks)
        .map(|network| {
            let [rx_bytes, rx_packets, rx_errors, rx_dropped] = network.received;
            let [tx_bytes, tx_packets, tx_errors, tx_dropped] = network.sent;
            let shown = object! {
                "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
                "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
            };
            (network.name.clone(), shown)
        })
        .collect();
    if !networks.is_empty() {
        pairs.push(("networks".into(), Json::Object(networks)));
    }
    Json::Object(pairs)
}

/// Which registries are known, and how they are reached.
fn registries(facts: &Facts) -> Json {
    let mirrors = || Json::list(facts.registry_mirrors.iter().map(String::as_str));
    let hub = object! { "Name": "docker.io", "Mirrors": mirrors(), "Secure": true, "Official": true };
    let mut indexes = vec![("docker.io".to_owned(), hub)];
    let (networks, names): (Vec<&String>, Vec<&String>) = facts.insecure_registries.iter().partition(|name| name.contains('/'));
    for name in names {
        let index = object! { "Name": name.as_str(), "Mirrors": Json::Array(Vec::new()), "Secure": false, "Official": false };
        indexes.push((name.clone(), index));
    }
    let networks = networks.into_iter().map(String::as_str).chain(["127.0.0.0/8", "::1/128"]);
    object! {
        "IndexConfigs": Json::Object(indexes),
        "InsecureRegistryCIDRs": Json::list(networks),
        "Mirrors": if facts.registry_mirrors.is_empty() { Json::NULL } else { mirrors() },
    }
}

#[cfg(test)]
mod tests {
    use sampan_engine::Counters;

    use super::{event, stats};

    #[test]
    fn stats_of_a_container_that_does_not_run_are_docker_s_zeros() {
        let text = stats("f00", "idle", None, None, (0, 0)).print();
        assert!(text.starts_with("{\"name\":\"/idle\",\"id\":\"f00\",\"read\":\"0001-01-01T00:00:00Z\",\"preread\":\"0001-01-01T00:00:00Z\",\"pids_stats\":{},\"blkio_stats\":{\"io_service_bytes_recursive\":null,"), "{text}");
        assert!(text.ends_with("\"memory_stats\":{}}"), "{text}");
        assert!(!text.contains("system_cpu_usage"));
    }

    #[test]
    fn a_first_sample_has_no_earlier_processor_time() {
        let counters =
            Counters { cpu: [3, 1, 2], system_cpu: 9, online_cpus: 2, pids: 1, memory: 5, memory_limit: 7, ..Counters::default() };
        let text = stats("f00", "web", Some(&counters), None, (1, 0)).print();
        assert!(text.contains("\"pids_stats\":{\"current\":1}"), "{text}");
        assert!(text.contains("\"system_cpu_usage\":9,\"online_cpus\":2,\"throttling_data\""), "{text}");
        assert!(
            text.contains(
                "\"precpu_stats\":{\"cpu_usage\":{\"total_usage\":0,\"usage_in_kernelmode\":0,\"usage_in_usermode\":0},\"throttling_data\""
            ),
            "{text}"
        );
        assert!(text.ends_with("\"memory_stats\":{\"usage\":5,\"stats\":{},\"limit\":7}}"), "{text}");
    }

    #[test]
    fn events_keep_the_old_fields_for_containers_only() {
        let mut given = sampan_base::Event {
            kind: sampan_base::EventKind::Container,
            action: "die".into(),
            id: "f00".into(),
            attributes: vec![("name".into(), "web".into()), ("image".into(), "box".into())],
            time_nano: 1_795_508_191_331_515_394,
        };
        let text = event(&given).print();
        assert_eq!(
            text,
            "{\"status\":\"die\",\"id\":\"f00\",\"from\":\"box\",\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"f00\",\"Attributes\":{\"image\":\"box\",\"name\":\"web\"}},\"scope\":\"local\",\"time\":1795508191,\"timeNano\":1795508191331515394}"
        );
        given.kind = sampan_base::EventKind::Volume;
        assert!(event(&given).print().starts_with("{\"Type\":\"volume\""));
    }
}
