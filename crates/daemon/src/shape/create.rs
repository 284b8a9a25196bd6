//! `Config`, both ways, and the body of create.

use std::collections::BTreeMap;

use sampan_engine::CreateRequest;
use sampan_engine::model::{Config, EndpointRequest, ExecRequest, HealthProbe};
use sampan_wire::{FieldError, Fields, Json};

use super::set;
use crate::respond::{ApiError, bad_field};

/// The body of `POST /containers/create`.
pub(crate) fn parse(fields: &Fields, name: Option<String>, platform: &str) -> Result<CreateRequest, ApiError> {
    let config = config(fields).map_err(bad_field)?;
    let host = super::host::parse(&fields.object("HostConfig").map_err(bad_field)?)?;
    let networking = fields.object("NetworkingConfig").and_then(|fields| fields.object("EndpointsConfig")).map_err(bad_field)?;
    let mut endpoints = BTreeMap::new();
    for (network, value) in networking.entries() {
        let fields = Fields::new(value.clone()).map_err(bad_field)?;
        endpoints.insert(network.clone(), endpoint(&fields).map_err(bad_field)?);
    }
    Ok(CreateRequest { name, config, host, endpoints, platform: platform.to_owned() })
}

fn endpoint(fields: &Fields) -> Result<EndpointRequest, FieldError> {
    let ipam = fields.object("IPAMConfig")?;
    Ok(EndpointRequest {
        ipv4: ipam.text("IPv4Address")?,
        ipv6: ipam.text("IPv6Address")?,
        mac: fields.text("MacAddress")?,
        aliases: fields.texts("Aliases")?,
        links: fields.texts("Links")?,
        driver_options: fields.map("DriverOpts")?,
        gateway_priority: fields.number("GwPriority")?,
    })
}

pub(crate) fn config(fields: &Fields) -> Result<Config, FieldError> {
    let health = fields.object("Healthcheck")?;
    let healthcheck = fields.get("Healthcheck").map(|_| -> Result<HealthProbe, FieldError> {
        Ok(HealthProbe {
            test: health.texts("Test")?,
            interval: health.number("Interval")?,
            timeout: health.number("Timeout")?,
            start_period: health.number("StartPeriod")?,
            start_interval: health.number("StartInterval")?,
            retries: health.number("Retries")?,
        })
    });
    Ok(Config {
        hostname: fields.text("Hostname")?,
        domainname: fields.text("Domainname")?,
        user: fields.text("User")?,
        attach_stdin: fields.truth("AttachStdin")?,
        attach_stdout: fields.truth("AttachStdout")?,
        attach_stderr: fields.truth("AttachStderr")?,
        exposed_ports: fields.keys("ExposedPorts")?.into_iter().collect(),
        tty: fields.truth("Tty")?,
        open_stdin: fields.truth("OpenStdin")?,
        stdin_once: fields.truth("StdinOnce")?,
        env: fields.texts("Env")?,
        cmd: fields.optional_texts("Cmd")?,
        healthcheck: healthcheck.transpose()?,
        args_escaped: fields.truth("ArgsEscaped")?,
        image: fields.text("Image")?,
        volumes: fields.keys("Volumes")?.into_iter().collect(),
        working_dir: fields.text("WorkingDir")?,
        entrypoint: fields.optional_texts("Entrypoint")?.filter(|words| !words.is_empty()),
        network_disabled: fields.truth("NetworkDisabled")?,
        mac_address: fields.text("MacAddress")?,
        on_build: fields.optional_texts("OnBuild")?,
        labels: fields.map("Labels")?,
        stop_signal: fields.text("StopSignal")?,
        stop_timeout: fields.optional_number("StopTimeout")?,
        shell: fields.optional_texts("Shell")?,
    })
}

/// The body of exec create.
pub(crate) fn exec(fields: &Fields) -> Result<ExecRequest, FieldError> {
    Ok(ExecRequest {
        cmd: fields.texts("Cmd")?,
        env: fields.texts("Env")?,
        user: fields.text("User")?,
        working_dir: fields.text("WorkingDir")?,
        privileged: fields.truth("Privileged")?,
        tty: fields.truth("Tty")?,
        attach_stdin: fields.truth("AttachStdin")?,
        attach_stdout: fields.truth("AttachStdout")?,
        attach_stderr: fields.truth("AttachStderr")?,
        detach_keys: fields.text("DetachKeys")?,
        console_size: console_size(fields)?,
    })
}

/// The body of exec start: whether to detach, whether the client wants plain bytes, and the terminal's size.
pub(crate) fn exec_start(fields: &Fields) -> Result<(bool, bool, Option<[u16; 2]>), FieldError> {
    Ok((fields.truth("Detach")?, fields.truth("Tty")?, console_size(fields)?))
}

/// Height and width of a terminal.
pub(crate) fn console_size(fields: &Fields) -> Result<Option<[u16; 2]>, FieldError> {
    let Some(value) = fields.get("ConsoleSize") else { return Ok(None) };
    let wrong = || FieldError("invalid JSON: json: cannot unmarshal into Go struct field ConsoleSize of type [2]uint".to_owned());
    let cell = |value: &serde_json::Value| value.as_u64().and_then(|value| u16::try_from(value).ok()).ok_or_else(wrong);
    match value.as_array().map(Vec::as_slice) {
        Some([height, width]) => Ok(Some([cell(height)?, cell(width)?])),
        _ => Err(wrong()),
    }
}

fn optional(list: Option<&Vec<String>>) -> Json {
    list.map_or(Json::NULL, |list| Json::list(list.iter().cloned()))
}

/// Fields that say nothing are left out.
fn health(probe: &HealthProbe) -> Json {
    let mut pairs: Vec<(String, Json)> = Vec::new();
    if !probe.test.is_empty() {
        pairs.push(("Test".into(), Json::list(probe.test.iter().cloned())));
    }
    let numbers = [
        ("Interval", probe.interval),
        ("Timeout", probe.timeout),
        ("StartPeriod", probe.start_period),
        ("StartInterval", probe.start_interval),
        ("Retries", probe.retries),
    ];
    pairs.extend(numbers.into_iter().filter(|(_, value)| *value != 0).map(|(key, value)| (key.to_owned(), value.into())));
    Json::Object(pairs)
}

/// Writes a `Config` in the original's order.
pub(crate) fn show(config: &Config) -> Json {
    let mut pairs: Vec<(String, Json)> = Vec::new();
    let mut put = |key: &str, value: Json| pairs.push((key.to_owned(), value));
    put("Hostname", config.hostname.clone().into());
    put("Domainname", config.domainname.clone().into());
    put("User", config.user.clone().into());
    put("AttachStdin", config.attach_stdin.into());
    put("AttachStdout", config.attach_stdout.into());
    put("AttachStderr", config.attach_stderr.into());
    if !config.exposed_ports.is_empty() {
        put("ExposedPorts", set(config.exposed_ports.iter().cloned()));
    }
    put("Tty", config.tty.into());
    put("OpenStdin", config.open_stdin.into());
    put("StdinOnce", config.stdin_once.into());
    put("Env", Json::list(config.env.iter().cloned()));
    put("Cmd", optional(config.cmd.as_ref()));
    if let Some(probe) = &config.healthcheck {
        put("Healthcheck", health(probe));
    }
    put("Image", config.image.clone().into());
    put("Volumes", set(config.volumes.iter().cloned()));
    put("WorkingDir", config.working_dir.clone().into());
    put("Entrypoint", optional(config.entrypoint.as_ref()));
    put("OnBuild", optional(config.on_build.as_ref()));
    put("Labels", Json::map(config.labels.iter().map(|(key, value)| (key.clone(), value.clone()))));
    if !config.stop_signal.is_empty() {
        put("StopSignal", config.stop_signal.clone().into());
    }
    if let Some(timeout) = config.stop_timeout {
        put("StopTimeout", timeout.into());
    }
    if let Some(shell) = &config.shell {
        put("Shell", Json::list(shell.iter().cloned()));
    }
    Json::Object(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Keys that the parsers look at, so that random documents reach them.
    const KEYS: &[&str] = &[
        "Image",
        "cmd",
        "Entrypoint",
        "Env",
        "Labels",
        "Healthcheck",
        "Test",
        "Interval",
        "ExposedPorts",
        "Volumes",
        "HostConfig",
        "Binds",
        "Mounts",
        "Type",
        "Target",
        "TmpfsOptions",
        "Options",
        "PortBindings",
        "80/tcp",
        "HostIp",
        "HostPort",
        "RestartPolicy",
        "Name",
        "MaximumRetryCount",
        "Ulimits",
        "Soft",
        "Devices",
        "BlkioWeightDevice",
        "ConsoleSize",
        "LogConfig",
        "Config",
        "NetworkingConfig",
        "EndpointsConfig",
        "bridge",
        "IPAMConfig",
        "Memory",
        "PidsLimit",
        "other",
    ];

    fn document() -> impl Strategy<Value = Value> {
        let text = prop_oneof![any::<String>(), Just("bind".to_owned()), Just("no".to_owned()), Just("tcp".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            let key = prop_oneof![9 => proptest::sample::select(KEYS).prop_map(str::to_owned), 1 => any::<String>()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..8).prop_map(Value::from_iter)
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_document_makes_the_parsers_panic(value in document()) {
            let Ok(fields) = Fields::new(value) else { return Ok(()) };
            if let Ok(request) = parse(&fields, None, "") {
                let shown = super::super::host::show(&request.host, true).print() + &show(&request.config).print();
                prop_assert!(!shown.is_empty());
            }
            drop((exec(&fields), super::super::host::resources(&fields), super::super::host::restart(&fields)));
        }
    }

    fn read(value: Value) -> Result<CreateRequest, String> {
        parse(&Fields::new(value).unwrap(), None, "").map_err(|error| error.message)
    }

    #[test]
    fn keys_are_read_in_any_case_and_unknown_ones_are_ignored() {
        let request = read(json!({ "image": "box", "CMD": ["x"], "Bogus": 1, "hostconfig": { "MEMORY": 7, "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } } })).unwrap();
        assert_eq!((request.config.image.as_str(), request.config.cmd.as_deref()), ("box", Some(["x".to_owned()].as_slice())));
        assert_eq!(request.host.resources.memory, 7);
        assert_eq!(
            super::super::host::show_ports(&request.host.port_bindings).print(),
            "{\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"8080\"}]}"
        );
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        assert!(read(json!({ "Image": 5 })).unwrap_err().contains("Image"));
        assert!(read(json!({ "HostConfig": { "Memory": "x" } })).unwrap_err().contains("Memory"));
        assert!(read(json!({ "HostConfig": { "RestartPolicy": { "Name": "often" } } })).unwrap_err().contains("often"));
        assert!(read(json!({ "HostConfig": { "Mounts": [{ "Type": "npipe" }] } })).unwrap_err().contains("npipe"));
    }

    #[test]
    fn a_health_probe_shows_only_what_it_says() {
        let probe = HealthProbe { test: vec!["CMD-SHELL".into(), "true".into()], interval: 5, start_period: 2, ..HealthProbe::default() };
        assert_eq!(health(&probe).print(), "{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":5,\"StartPeriod\":2}");
    }

    #[test]
    fn host_config_keys_come_in_docker_s_order() {
        let Json::Object(pairs) = super::super::host::show(&sampan_engine::model::HostConfig::default(), false) else {
            panic!("not an object")
        };
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let recorded = "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode \
            Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode \
            ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps \
            BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation \
            MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths";
        assert_eq!(keys, recorded.split_whitespace().collect::<Vec<_>>());
    }
}
