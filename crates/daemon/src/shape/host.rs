//! `HostConfig`, both ways. This file is a table.

use std::collections::BTreeMap;

use sampan_engine::model::{
    BindPropagation, DeviceMapping, HostConfig, LogConfig, MountKind, MountRequest, PortBinding, PortMap, PortSpec, Resources,
    RestartPolicy, RestartPolicyName, Ulimit,
};
use sampan_wire::{Fields, Json, object};

use crate::respond::{ApiError, bad_field};

/// Reads a `HostConfig`; what is not offered is refused by the engine, unknown keys are ignored as Go does.
pub(crate) fn parse(fields: &Fields) -> Result<HostConfig, ApiError> {
    read(fields).map_err(bad_field).and_then(|mut host| {
        host.port_bindings = ports(&fields.object("PortBindings").map_err(bad_field)?)?;
        host.restart_policy = restart(&fields.object("RestartPolicy").map_err(bad_field)?)?;
        host.mounts = fields.objects("Mounts").map_err(bad_field)?.iter().map(mount).collect::<Result<_, _>>()?;
        host.resources = resources(fields)?;
        Ok(host)
    })
}

fn read(fields: &Fields) -> Result<HostConfig, sampan_wire::FieldError> {
    let log = fields.object("LogConfig")?;
    Ok(HostConfig {
        binds: fields.texts("Binds")?,
        container_id_file: fields.text("ContainerIDFile")?,
        log: LogConfig { driver: log.text("Type")?, options: log.map("Config")? },
        network_mode: fields.text("NetworkMode")?,
        auto_remove: fields.truth("AutoRemove")?,
        console_size: super::create::console_size(fields)?.unwrap_or_default(),
        volumes_from: fields.texts("VolumesFrom")?,
        annotations: fields.map("Annotations")?,
        cap_add: fields.texts("CapAdd")?,
        cap_drop: fields.texts("CapDrop")?,
        cgroupns_mode: fields.text("CgroupnsMode")?,
        dns: fields.texts("Dns")?,
        dns_options: fields.texts("DnsOptions")?,
        dns_search: fields.texts("DnsSearch")?,
        extra_hosts: fields.texts("ExtraHosts")?,
        group_add: fields.texts("GroupAdd")?,
        ipc_mode: fields.text("IpcMode")?,
        links: fields.texts("Links")?,
        oom_score_adj: fields.number("OomScoreAdj")?,
        pid_mode: fields.text("PidMode")?,
        privileged: fields.truth("Privileged")?,
        publish_all_ports: fields.truth("PublishAllPorts")?,
        readonly_rootfs: fields.truth("ReadonlyRootfs")?,
        security_opt: fields.texts("SecurityOpt")?,
        storage_opt: fields.map("StorageOpt")?,
        tmpfs: fields.map("Tmpfs")?,
        uts_mode: fields.text("UTSMode")?,
        userns_mode: fields.text("UsernsMode")?,
        shm_size: fields.number("ShmSize")?,
        sysctls: fields.map("Sysctls")?,
        runtime: fields.text("Runtime")?,
        isolation: fields.text("Isolation")?,
        masked_paths: fields.optional_texts("MaskedPaths")?,
        readonly_paths: fields.optional_texts("ReadonlyPaths")?,
        init: fields.optional_truth("Init")?,
        volume_driver: fields.text("VolumeDriver")?,
        cgroup: fields.text("Cgroup")?,
        ..HostConfig::default()
    })
}

fn ports(fields: &Fields) -> Result<PortMap, ApiError> {
    let mut map = PortMap::new();
    for (key, value) in fields.entries() {
        let port: PortSpec = key.parse().map_err(ApiError::invalid)?;
        let mut bindings = Vec::new();
        let list = match value {
            serde_json::Value::Null => &[],
            serde_json::Value::Array(list) => list.as_slice(),
            _ => {
                let text = format!("invalid JSON: json: cannot unmarshal PortBindings of {key} into Go value of type []nat.PortBinding");
                return Err(ApiError::invalid(text));
            }
        };
        for binding in list {
            let binding = Fields::new(binding.clone()).map_err(bad_field)?;
            bindings.push(PortBinding {
                host_ip: binding.text("HostIp").map_err(bad_field)?,
                host_port: binding.text("HostPort").map_err(bad_field)?,
            });
        }
        map.insert(port, bindings);
    }
    Ok(map)
}

pub(crate) fn restart(fields: &Fields) -> Result<RestartPolicy, ApiError> {
    let name = match fields.text("Name").map_err(bad_field)?.as_str() {
        "" | "no" => RestartPolicyName::No,
        "always" => RestartPolicyName::Always,
        "on-failure" => RestartPolicyName::OnFailure,
        "unless-stopped" => RestartPolicyName::UnlessStopped,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    let count = fields.number("MaximumRetryCount").map_err(bad_field)?;
    let maximum_retry_count =
        u32::try_from(count).map_err(|_| ApiError::invalid("invalid restart policy: maximum retry count cannot be negative"))?;
    Ok(RestartPolicy { name, maximum_retry_count })
}

fn mount(fields: &Fields) -> Result<MountRequest, ApiError> {
    let text = |fields: &Fields, key: &str| fields.text(key).map_err(bad_field);
    let truth = |fields: &Fields, key: &str| fields.truth(key).map_err(bad_field);
    let kind = match text(fields, "Type")?.as_str() {
        "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        other => return Err(ApiError::invalid(format!("invalid mount config for type \"{other}\": mount type unknown"))),
    };
    let object = |key: &str| fields.object(key).map_err(bad_field);
    let (bind, volume, tmpfs) = (object("BindOptions")?, object("VolumeOptions")?, object("TmpfsOptions")?);
    let driver = volume.object("DriverConfig").map_err(bad_field)?;
    let propagation = match text(&bind, "Propagation")?.as_str() {
        "" | "rprivate" => BindPropagation::RPrivate,
        "private" => BindPropagation::Private,
        "rshared" => BindPropagation::RShared,
        "shared" => BindPropagation::Shared,
        "rslave" => BindPropagation::RSlave,
        "slave" => BindPropagation::Slave,
        other => return Err(ApiError::invalid(format!("invalid propagation mode: {other}"))),
    };
    let options = tmpfs.get("Options").map(|value| serde_json::from_value(value.clone())).transpose();
    let options =
        options.map_err(|_| ApiError::invalid("invalid JSON: json: cannot unmarshal into Go struct field Options of type [][]string"))?;
    Ok(MountRequest {
        kind,
        source: text(fields, "Source")?,
        target: text(fields, "Target")?,
        read_only: truth(fields, "ReadOnly")?,
        propagation,
        non_recursive: truth(&bind, "NonRecursive")?,
        create_mountpoint: truth(&bind, "CreateMountpoint")?,
        read_only_non_recursive: truth(&bind, "ReadOnlyNonRecursive")?,
        read_only_force_recursive: truth(&bind, "ReadOnlyForceRecursive")?,
        no_copy: truth(&volume, "NoCopy")?,
        labels: volume.map("Labels").map_err(bad_field)?,
        subpath: text(&volume, "Subpath")?,
        driver: text(&driver, "Name")?,
        driver_options: driver.map("Options").map_err(bad_field)?,
        tmpfs_size: tmpfs.number("SizeBytes").map_err(bad_field)?,
        tmpfs_mode: u32::try_from(tmpfs.number("Mode").map_err(bad_field)?)
            .map_err(|_| ApiError::invalid("invalid JSON: json: cannot unmarshal number into Go struct field Mode of type fs.FileMode"))?,
        tmpfs_options: options.unwrap_or_default(),
    })
}

/// Reads limits: part of `HostConfig`, and the body of `update`.
pub(crate) fn resources(fields: &Fields) -> Result<Resources, ApiError> {
    let limits = || -> Result<Resources, sampan_wire::FieldError> {
        let devices = fields.objects("Devices")?;
        let ulimits = fields.objects("Ulimits")?;
        let rates = |key: &str| -> Result<Vec<sampan_engine::model::DeviceRate>, sampan_wire::FieldError> {
            let list = fields.objects(key)?;
            list.iter()
                .map(|rate| {
                    Ok(sampan_engine::model::DeviceRate {
                        path: rate.text("Path")?,
                        rate: u64::try_from(rate.number("Rate")?).unwrap_or(0),
                    })
                })
                .collect()
        };
        let weights = fields.objects("BlkioWeightDevice")?;
        Ok(Resources {
            cpu_shares: fields.number("CpuShares")?,
            memory: fields.number("Memory")?,
            nano_cpus: fields.number("NanoCpus")?,
            cgroup_parent: fields.text("CgroupParent")?,
            blkio_weight: u16::try_from(fields.number("BlkioWeight")?).unwrap_or(u16::MAX),
            blkio_weight_device: weights
                .iter()
                .map(|one| {
                    Ok(sampan_engine::model::WeightDevice {
                        path: one.text("Path")?,
                        weight: u16::try_from(one.number("Weight")?).unwrap_or(0),
                    })
                })
                .collect::<Result<_, sampan_wire::FieldError>>()?,
            blkio_device_read_bps: rates("BlkioDeviceReadBps")?,
            blkio_device_write_bps: rates("BlkioDeviceWriteBps")?,
            blkio_device_read_iops: rates("BlkioDeviceReadIOps")?,
            blkio_device_write_iops: rates("BlkioDeviceWriteIOps")?,
            cpu_period: fields.number("CpuPeriod")?,
            cpu_quota: fields.number("CpuQuota")?,
            cpu_realtime_period: fields.number("CpuRealtimePeriod")?,
            cpu_realtime_runtime: fields.number("CpuRealtimeRuntime")?,
            cpuset_cpus: fields.text("CpusetCpus")?,
            cpuset_mems: fields.text("CpusetMems")?,
            devices: devices
                .iter()
                .map(|one| {
                    Ok(DeviceMapping {
                        path_on_host: one.text("PathOnHost")?,
                        path_in_container: one.text("PathInContainer")?,
                        cgroup_permissions: one.text("CgroupPermissions")?,
                    })
                })
                .collect::<Result<_, sampan_wire::FieldError>>()?,
            device_cgroup_rules: fields.texts("DeviceCgroupRules")?,
            device_requests: fields.get("DeviceRequests").and_then(serde_json::Value::as_array).cloned().unwrap_or_default(),
            memory_reservation: fields.number("MemoryReservation")?,
            memory_swap: fields.number("MemorySwap")?,
            memory_swappiness: fields.optional_number("MemorySwappiness")?.filter(|value| *value != -1),
            oom_kill_disable: fields.optional_truth("OomKillDisable")?,
            pids_limit: fields.optional_number("PidsLimit")?,
            ulimits: ulimits
                .iter()
                .map(|one| Ok(Ulimit { name: one.text("Name")?, soft: one.number("Soft")?, hard: one.number("Hard")? }))
                .collect::<Result<_, sampan_wire::FieldError>>()?,
        })
    };
    limits().map_err(bad_field)
}

fn texts(list: &[String]) -> Json {
    Json::list_or_null(list.iter().cloned())
}

pub(crate) fn map(map: &BTreeMap<String, String>) -> Json {
    Json::map(map.iter().map(|(key, value)| (key.clone(), value.clone())))
}

/// Published ports as the API shows them.
pub(crate) fn show_ports(ports: &PortMap) -> Json {
    Json::map(ports.iter().map(|(port, bindings)| {
        let list = bindings.iter().map(|binding| object! { "HostIp": binding.host_ip.clone(), "HostPort": binding.host_port.clone() });
        (port.to_string(), Json::Array(list.collect()))
    }))
}

/// Writes a `HostConfig` in the original's order.
pub(crate) fn show(host: &HostConfig, unified: bool) -> Json {
    let limits = &host.resources;
    let default_masked: Vec<String> = sampan_engine_defaults().0;
    let default_readonly: Vec<String> = sampan_engine_defaults().1;
    let paths = |given: &Option<Vec<String>>, default: Vec<String>| match given {
        Some(list) => Json::list(list.iter().cloned()),
        None if host.privileged => Json::NULL,
        None => Json::list(default),
    };
    let cgroupns =
        if host.cgroupns_mode.is_empty() { if unified && !host.privileged { "private" } else { "host" } } else { &host.cgroupns_mode };
    let mut pairs = object! {
        "Binds": texts(&host.binds),
        "ContainerIDFile": host.container_id_file.clone(),
        "LogConfig": object! { "Type": host.log.driver.clone(), "Config": map(&host.log.options) },
        "NetworkMode": host.network_mode.clone(),
        "PortBindings": show_ports(&host.port_bindings),
        "RestartPolicy": object! { "Name": host.restart_policy.name.name(), "MaximumRetryCount": host.restart_policy.maximum_retry_count },
        "AutoRemove": host.auto_remove,
        "VolumeDriver": host.volume_driver.clone(),
        "VolumesFrom": texts(&host.volumes_from),
        "ConsoleSize": Json::list(host.console_size),
    }
    .pairs();
    if !host.annotations.is_empty() {
        pairs.push(("Annotations".into(), map(&host.annotations)));
    }
    let rights = object! {
        "CapAdd": texts(&host.cap_add),
        "CapDrop": texts(&host.cap_drop),
        "CgroupnsMode": cgroupns,
        "Dns": Json::list(host.dns.clone()),
        "DnsOptions": Json::list(host.dns_options.clone()),
        "DnsSearch": Json::list(host.dns_search.clone()),
        "ExtraHosts": texts(&host.extra_hosts),
        "GroupAdd": texts(&host.group_add),
        "IpcMode": host.ipc_mode.clone(),
        "Cgroup": host.cgroup.clone(),
        "Links": texts(&host.links),
        "OomScoreAdj": host.oom_score_adj,
        "PidMode": host.pid_mode.clone(),
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all_ports,
        "ReadonlyRootfs": host.readonly_rootfs,
        "SecurityOpt": texts(&host.security_opt),
    };
    pairs.extend(rights.pairs());
    if !host.tmpfs.is_empty() {
        pairs.push(("Tmpfs".into(), map(&host.tmpfs)));
    }
    pairs.extend([
        ("UTSMode".to_owned(), host.uts_mode.clone().into()),
        ("UsernsMode".to_owned(), host.userns_mode.clone().into()),
        ("ShmSize".to_owned(), host.shm_size.into()),
    ]);
    if !host.sysctls.is_empty() {
        pairs.push(("Sysctls".into(), map(&host.sysctls)));
    }
    pairs.extend([("Runtime".to_owned(), host.runtime.clone().into()), ("Isolation".to_owned(), host.isolation.clone().into())]);
    pairs.extend(show_limits(limits));
    if !host.mounts.is_empty() {
        pairs.push(("Mounts".into(), Json::Array(host.mounts.iter().map(super::mounts::show).collect())));
    }
    pairs.push(("MaskedPaths".into(), paths(&host.masked_paths, default_masked)));
    pairs.push(("ReadonlyPaths".into(), paths(&host.readonly_paths, default_readonly)));
    if let Some(init) = host.init {
        pairs.push(("Init".into(), init.into()));
    }
    Json::Object(pairs)
}

/// The default masked and read-only paths.
fn sampan_engine_defaults() -> (Vec<String>, Vec<String>) {
    let own = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    (own(sampan_engine::MASKED_PATHS), own(sampan_engine::READONLY_PATHS))
}

fn show_limits(limits: &Resources) -> Vec<(String, Json)> {
    let devices = limits.devices.iter().map(|device| {
        object! { "PathOnHost": device.path_on_host.clone(), "PathInContainer": device.path_in_container.clone(), "CgroupPermissions": device.cgroup_permissions.clone() }
    });
    let ulimits = limits.ulimits.iter().map(|limit| object! { "Name": limit.name.clone(), "Hard": limit.hard, "Soft": limit.soft });
    let shown = object! {
        "CpuShares": limits.cpu_shares,
        "Memory": limits.memory,
        "NanoCpus": limits.nano_cpus,
        "CgroupParent": limits.cgroup_parent.clone(),
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": Json::Array(Vec::new()),
        "BlkioDeviceReadBps": Json::Array(Vec::new()),
        "BlkioDeviceWriteBps": Json::Array(Vec::new()),
        "BlkioDeviceReadIOps": Json::Array(Vec::new()),
        "BlkioDeviceWriteIOps": Json::Array(Vec::new()),
        "CpuPeriod": limits.cpu_period,
        "CpuQuota": limits.cpu_quota,
        "CpuRealtimePeriod": limits.cpu_realtime_period,
        "CpuRealtimeRuntime": limits.cpu_realtime_runtime,
        "CpusetCpus": limits.cpuset_cpus.clone(),
        "CpusetMems": limits.cpuset_mems.clone(),
        "Devices": Json::Array(devices.collect()),
        "DeviceCgroupRules": texts(&limits.device_cgroup_rules),
        "DeviceRequests": Json::NULL,
        "MemoryReservation": limits.memory_reservation,
        "MemorySwap": limits.memory_swap,
        "MemorySwappiness": Json::option(limits.memory_swappiness),
        "OomKillDisable": Json::option(Some(limits.oom_kill_disable.unwrap_or(false))),
        "PidsLimit": Json::option(limits.pids_limit),
        "Ulimits": Json::Array(ulimits.collect()),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    };
    match shown {
        Json::Object(pairs) => pairs,
        _ => Vec::new(),
    }
}
