//! The `HostConfig` of a new container.

use sampan_gotext::flags::Matches;
use sampan_wire::{Json, object};

use super::checks::parse_ulimit;
use super::ports::{self, Published};
use super::{mounts, pairs};
use crate::error::{CliError, Outcome, errno_text};

type Pairs = Vec<(String, Json)>;

/// Makes it.
///
/// # Errors
/// Docker's texts.
pub(super) fn config(matches: &Matches, binds: Vec<String>, published: &[Published], network: &str, terminal: (u16, u16)) -> Outcome<Json> {
    let mut host: Pairs = Vec::new();
    let (restart, retries) = restart_policy(matches.text("restart"))?;
    if matches.truth("rm") && restart != "no" && !restart.is_empty() {
        return Err(CliError::new("conflicting options: cannot specify both --restart and --rm"));
    }
    namespaces(matches, &mut host)?;
    resources(matches, &mut host)?;
    devices(matches, &mut host)?;
    security(matches, &mut host)?;
    let list = |name: &str| Json::list_or_null(matches.list(name).iter().map(String::as_str));
    let both = |first: &str, second: &str| Json::list_or_null(matches.list(first).iter().chain(matches.list(second)).map(String::as_str));
    let mounts = matches.list("mount").iter().map(|mount| mounts::parse(mount)).collect::<Result<Vec<_>, _>>().map_err(CliError::new)?;
    let tmpfs = matches.list("tmpfs").iter().map(|spec| spec.split_once(':').unwrap_or((spec, "")));
    if matches.text("log-driver") == "none" && matches.given("log-opt") {
        return Err(CliError::new("invalid logging opts for driver none"));
    }
    let log_options = pairs(matches.list("log-opt"));
    let storage = matches.list("storage-opt");
    if storage.iter().any(|option| !option.contains('=')) {
        return Err(CliError::new("invalid storage option"));
    }
    host.extend([
        ("Binds".to_owned(), Json::list_or_null(binds)),
        ("ContainerIDFile".into(), matches.text("cidfile").into()),
        ("LogConfig".into(), object! { "Type": matches.text("log-driver"), "Config": Json::map(log_options) }),
        ("NetworkMode".into(), network.into()),
        ("PortBindings".into(), ports::bindings(published)),
        ("RestartPolicy".into(), object! { "Name": restart, "MaximumRetryCount": retries }),
        ("AutoRemove".into(), matches.truth("rm").into()),
        ("VolumeDriver".into(), matches.text("volume-driver").into()),
        ("VolumesFrom".into(), list("volumes-from")),
        ("ConsoleSize".into(), Json::list([i64::from(terminal.0), i64::from(terminal.1)])),
        ("Annotations".into(), Json::map(pairs(matches.list("annotation")))),
        ("CapAdd".into(), list("cap-add")),
        ("CapDrop".into(), list("cap-drop")),
        ("Dns".into(), Json::list(matches.list("dns").iter().map(String::as_str))),
        ("DnsOptions".into(), both("dns-option", "dns-opt")),
        ("DnsSearch".into(), Json::list(matches.list("dns-search").iter().map(String::as_str))),
        ("ExtraHosts".into(), list("add-host")),
        ("GroupAdd".into(), list("group-add")),
        ("Links".into(), list("link")),
        ("PublishAllPorts".into(), matches.truth("publish-all").into()),
        ("ReadonlyRootfs".into(), matches.truth("read-only").into()),
        ("Isolation".into(), matches.text("isolation").into()),
        ("Runtime".into(), matches.text("runtime").into()),
        ("ShmSize".into(), matches.int("shm-size").into()),
        ("Sysctls".into(), Json::map(pairs(matches.list("sysctl")))),
        ("StorageOpt".into(), Json::map(pairs(storage))),
    ]);
    if !mounts.is_empty() {
        host.push(("Mounts".into(), Json::Array(mounts)));
    }
    if matches.given("tmpfs") {
        host.push(("Tmpfs".into(), Json::map(tmpfs)));
    }
    if matches.given("init") {
        host.push(("Init".into(), matches.truth("init").into()));
    }
    Ok(Json::Object(host))
}

/// `no`, `always`, `on-failure:3`.
///
/// # Errors
/// Docker's texts.
pub(crate) fn restart_policy(text: &str) -> Outcome<(String, i64)> {
    if text.is_empty() {
        return Ok((String::new(), 0));
    }
    let (name, times) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(CliError::new("invalid restart policy format: no policy provided before colon"));
    }
    if !text.contains(':') {
        return Ok((name.to_owned(), 0));
    }
    let times = times.parse().map_err(|_| CliError::new("invalid restart policy format: maximum retry count must be an integer"))?;
    Ok((name.to_owned(), times))
}

fn namespaces(matches: &Matches, host: &mut Pairs) -> Outcome<()> {
    let shared = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let (pid, uts, users, cgroup) = (matches.text("pid"), matches.text("uts"), matches.text("userns"), matches.text("cgroupns"));
    for (given, valid, text) in [
        (pid, matches!(pid, "" | "host") || shared(pid), "--pid: invalid PID mode"),
        (uts, matches!(uts, "" | "host"), "--uts: invalid UTS mode"),
        (users, matches!(users, "" | "host"), "--userns: invalid USER mode"),
        (cgroup, matches!(cgroup, "" | "host" | "private"), "--cgroupns: invalid CGROUP mode"),
    ] {
        if !valid && !given.is_empty() {
            return Err(CliError::new(text));
        }
    }
    host.extend([
        ("PidMode".to_owned(), Json::from(pid)),
        ("UTSMode".into(), uts.into()),
        ("UsernsMode".into(), users.into()),
        ("CgroupnsMode".into(), cgroup.into()),
        ("IpcMode".into(), matches.text("ipc").into()),
    ]);
    Ok(())
}

fn resources(matches: &Matches, host: &mut Pairs) -> Outcome<()> {
    let swappiness = matches.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(CliError::new(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100")));
    }
    let ulimits = matches.list("ulimit").iter().map(|limit| parse_ulimit(limit)).collect::<Result<Vec<_>, _>>().map_err(CliError::new)?;
    let ulimits = ulimits.into_iter().map(|(name, soft, hard)| object! { "Name": name, "Soft": soft, "Hard": hard });
    for (key, flag) in [
        ("Memory", "memory"),
        ("MemoryReservation", "memory-reservation"),
        ("MemorySwap", "memory-swap"),
        ("KernelMemory", "kernel-memory"),
        ("CpuShares", "cpu-shares"),
        ("NanoCpus", "cpus"),
        ("CpuPeriod", "cpu-period"),
        ("CpuQuota", "cpu-quota"),
        ("CpuRealtimePeriod", "cpu-rt-period"),
        ("CpuRealtimeRuntime", "cpu-rt-runtime"),
        ("BlkioWeight", "blkio-weight"),
        ("OomScoreAdj", "oom-score-adj"),
    ] {
        host.push((key.to_owned(), matches.int(flag).into()));
    }
    host.extend([
        ("MemorySwappiness".to_owned(), Json::from(swappiness)),
        ("OomKillDisable".into(), matches.truth("oom-kill-disable").into()),
        ("PidsLimit".into(), matches.int("pids-limit").into()),
        ("CpusetCpus".into(), matches.text("cpuset-cpus").into()),
        ("CpusetMems".into(), matches.text("cpuset-mems").into()),
        ("CgroupParent".into(), matches.text("cgroup-parent").into()),
        ("Ulimits".into(), Json::list(ulimits)),
    ]);
    Ok(())
}

fn devices(matches: &Matches, host: &mut Pairs) -> Outcome<()> {
    let mut devices = Vec::new();
    let mut named = Vec::new();
    for spec in matches.list("device") {
        if spec.contains('=') && spec.contains('/') && !spec.starts_with('/') {
            named.push(spec.as_str());
        } else {
            devices.push(device(spec)?);
        }
    }
    let mut requests = Vec::new();
    if !named.is_empty() {
        requests.push(
            object! { "Driver": "cdi", "Count": 0, "DeviceIDs": Json::list(named), "Capabilities": Json::NULL, "Options": Json::NULL },
        );
    }
    requests.extend(matches.list("gpus").iter().map(|spec| gpus(spec)));
    let rated = |name: &str, key: &str| {
        Json::list(matches.list(name).iter().map(|spec| {
            let (path, rate) = spec.rsplit_once(':').unwrap_or((spec, "0"));
            Json::Object(vec![("Path".to_owned(), path.into()), (key.to_owned(), rate.parse::<i64>().unwrap_or(0).into())])
        }))
    };
    host.extend([
        ("Devices".to_owned(), Json::Array(devices)),
        ("DeviceCgroupRules".into(), Json::list_or_null(matches.list("device-cgroup-rule").iter().map(String::as_str))),
        ("DeviceRequests".into(), Json::list_or_null(requests)),
        ("BlkioWeightDevice".into(), rated("blkio-weight-device", "Weight")),
        ("BlkioDeviceReadBps".into(), rated("device-read-bps", "Rate")),
        ("BlkioDeviceWriteBps".into(), rated("device-write-bps", "Rate")),
        ("BlkioDeviceReadIOps".into(), rated("device-read-iops", "Rate")),
        ("BlkioDeviceWriteIOps".into(), rated("device-write-iops", "Rate")),
    ]);
    Ok(())
}

/// `path[:path[:rwm]]`.
fn device(spec: &str) -> Outcome<Json> {
    let access = |text: &str| (1..=3).contains(&text.len()) && text.chars().all(|letter| "rwm".contains(letter));
    let fields: Vec<&str> = spec.split(':').collect();
    let (source, target, rights) = match fields[..] {
        [source] => (source, source, "rwm"),
        [source, second] if access(second) => (source, source, second),
        [source, second] => (source, second, "rwm"),
        [source, target, third] if access(third) => (source, target, third),
        [_, _, third] => return Err(CliError::new(format!("bad mode specified: {third}"))),
        _ => return Err(CliError::new(format!("bad format for path: {spec}"))),
    };
    if !target.starts_with('/') {
        return Err(CliError::new(format!("{target} is not an absolute path")));
    }
    Ok(object! { "PathOnHost": source, "PathInContainer": target, "CgroupPermissions": rights })
}

fn gpus(spec: &str) -> Json {
    let mut count = 0;
    let (mut driver, mut ids, mut capabilities) = ("", Vec::new(), vec!["gpu"]);
    for field in spec.split(',') {
        match field.split_once('=') {
            None | Some(("count", _)) => {
                let number = field.split_once('=').map_or(field, |(_, number)| number);
                count = if number == "all" { -1 } else { number.parse().unwrap_or(0) };
            }
            Some(("driver", value)) => driver = value,
            Some(("device", value)) => ids.extend(value.split(',')),
            Some(("capabilities", value)) => capabilities.extend(value.split(',')),
            Some(_) => {}
        }
    }
    if count == 0 && ids.is_empty() {
        count = 1;
    }
    object! { "Driver": driver, "Count": count, "DeviceIDs": Json::list_or_null(ids), "Capabilities": Json::Array(vec![Json::list(capabilities)]), "Options": Json::Object(Vec::new()) }
}

fn security(matches: &Matches, host: &mut Pairs) -> Outcome<()> {
    let mut options = Vec::new();
    let mut all_paths = false;
    for option in matches.list("security-opt") {
        if option == "systempaths=unconfined" {
            all_paths = true;
            continue;
        }
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        match pair {
            None if option != "no-new-privileges" => {
                return Err(CliError::new(format!("Invalid --security-opt: {}", sampan_gotext::quote(option))));
            }
            Some(("seccomp", file)) if !matches!(file, "unconfined" | "builtin") => options.push(format!("seccomp={}", profile(file)?)),
            _ => options.push(option.clone()),
        }
    }
    host.push(("Privileged".to_owned(), matches.truth("privileged").into()));
    host.push(("SecurityOpt".into(), Json::list_or_null(options)));
    if all_paths {
        host.push(("MaskedPaths".into(), Json::Array(Vec::new())));
        host.push(("ReadonlyPaths".into(), Json::Array(Vec::new())));
    }
    Ok(())
}

/// A seccomp profile's JSON without blanks.
fn profile(file: &str) -> Outcome<String> {
    let text = std::fs::read(file)
        .map_err(|error| CliError::new(format!("opening seccomp profile ({file}) failed: open {file}: {}", errno_text(&error))))?;
    let json =
        Json::parse(&text).map_err(|error| CliError::new(format!("compacting json for seccomp profile ({file}) failed: {error}")))?;
    Ok(json.print())
}
