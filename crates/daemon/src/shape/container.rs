//! Containers as inspect and list show them.

use sampan_engine::model::{ContainerSpec, ContainerView, EndpointView, Health, HealthStatus, MountPoint, ProbeResult, State, Status};
use sampan_gotext::units::span;
use sampan_wire::{Json, object};

use super::time;

/// The document of inspect.
pub(crate) fn inspect(view: &ContainerView, unified: bool) -> Json {
    let (spec, state) = (&view.spec, &view.state);
    let graph = object! {
        "Data": object! { "ID": spec.id.clone(), "MergedDir": view.graph_upper.replace("/upper", "/merged"), "UpperDir": view.graph_upper.clone(), "WorkDir": view.graph_work.clone() },
        "Name": "overlay2",
    };
    let mut pairs = object! {
        "Id": spec.id.clone(),
        "Created": time(spec.created),
        "Path": view.path.clone(),
        "Args": Json::list(view.args.iter().cloned()),
        "State": show_state(state),
        "Image": spec.image_id.clone(),
        "ResolvConfPath": view.resolv_conf_path.clone(),
        "HostnamePath": view.hostname_path.clone(),
        "HostsPath": view.hosts_path.clone(),
        "LogPath": view.log_path.clone(),
        "Name": format!("/{}", spec.name),
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": view.apparmor_profile.clone(),
        "ExecIDs": Json::list_or_null(view.exec_ids.iter().cloned()),
        "HostConfig": super::host::show(&spec.host, unified),
        "GraphDriver": graph,
    }
    .pairs();
    if let Some((upper, whole)) = view.size {
        pairs.push(("SizeRw".into(), upper.into()));
        pairs.push(("SizeRootFs".into(), whole.into()));
    }
    pairs.push(("Mounts".into(), Json::Array(spec.mounts.iter().filter(|mount| !is_flag_tmpfs(spec, mount)).map(mount).collect())));
    pairs.push(("Config".into(), super::create::show(&spec.config)));
    pairs.push(("NetworkSettings".into(), network_settings(view)));
    Json::Object(pairs)
}

/// Mounts of `--tmpfs` are shown in `HostConfig` alone; those of `--mount` among the mounts, too.
fn is_flag_tmpfs(spec: &ContainerSpec, mount: &MountPoint) -> bool {
    mount.kind == "tmpfs" && !spec.host.mounts.iter().any(|wish| wish.target.trim_end_matches('/') == mount.destination)
}

fn mount(mount: &MountPoint) -> Json {
    let mut pairs: Vec<(String, Json)> = vec![("Type".into(), mount.kind.clone().into())];
    if !mount.name.is_empty() {
        pairs.push(("Name".into(), mount.name.clone().into()));
    }
    pairs.push(("Source".into(), mount.source.clone().into()));
    pairs.push(("Destination".into(), mount.destination.clone().into()));
    if !mount.driver.is_empty() {
        pairs.push(("Driver".into(), mount.driver.clone().into()));
    }
    pairs.push(("Mode".into(), mount.mode.clone().into()));
    pairs.push(("RW".into(), mount.rw.into()));
    pairs.push(("Propagation".into(), mount.propagation.clone().into()));
    Json::Object(pairs)
}

fn endpoint(endpoint: &EndpointView) -> Json {
    object! {
        "IPAMConfig": Json::NULL,
        "Links": Json::NULL,
        "Aliases": Json::NULL,
        "MacAddress": endpoint.mac.clone(),
        "DriverOpts": Json::NULL,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id.clone(),
        "EndpointID": endpoint.endpoint_id.clone(),
        "Gateway": endpoint.gateway.clone(),
        "IPAddress": endpoint.ip.clone(),
        "IPPrefixLen": endpoint.prefix_len,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": Json::NULL,
    }
}

/// The networks of a container; one that does not run shows its wish.
fn networks(view: &ContainerView) -> Json {
    let endpoints = &view.state.endpoints;
    let mode = view.spec.host.network_mode.as_str();
    if endpoints.is_empty() && !mode.starts_with("container:") {
        return Json::map([(mode.to_owned(), endpoint(&EndpointView::default()))]);
    }
    Json::map(endpoints.iter().map(|(name, view)| (name.clone(), endpoint(view))))
}

fn network_settings(view: &ContainerView) -> Json {
    let main = view.state.endpoints.values().next().cloned().unwrap_or_default();
    let sandbox = if view.state.status.is_running() { view.spec.id.clone() } else { String::new() };
    object! {
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": "",
        "Ports": super::host::show_ports(&shown_ports(view)),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": Json::NULL,
        "SecondaryIPv6Addresses": Json::NULL,
        "EndpointID": main.endpoint_id.clone(),
        "Gateway": main.gateway.clone(),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": main.ip.clone(),
        "IPPrefixLen": main.prefix_len,
        "IPv6Gateway": "",
        "MacAddress": main.mac.clone(),
        "Networks": networks(view),
    }
}

fn shown_ports(view: &ContainerView) -> sampan_engine::model::PortMap {
    let mut ports = view.state.ports.clone();
    // Ports that are only declared are shown as long as there is a network.
    if view.state.status.is_running() && !view.state.endpoints.is_empty() {
        for port in view.spec.config.exposed_ports.iter().filter_map(|port| port.parse().ok()) {
            ports.entry(port).or_default();
        }
    }
    ports
}

/// The row of a list.
pub(crate) fn summary(view: &ContainerView, now: i64, api: (u32, u32)) -> Json {
    let spec = &view.spec;
    let mut pairs = object! {
        "Id": spec.id.clone(),
        "Names": Json::list([format!("/{}", spec.name)]),
        "Image": spec.config.image.clone(),
        "ImageID": spec.image_id.clone(),
        "Command": command(view),
        "Created": spec.created / 1_000_000_000,
        "Ports": Json::Array(ports(view)),
    }
    .pairs();
    if let Some((upper, whole)) = view.size {
        if upper != 0 {
            pairs.push(("SizeRw".into(), upper.into()));
        }
        pairs.push(("SizeRootFs".into(), whole.into()));
    }
    let rest = object! {
        "Labels": Json::map(spec.config.labels.iter().map(|(key, value)| (key.clone(), value.clone()))),
        "State": view.state.status.name(),
        "Status": status(view, now),
        "HostConfig": summary_host(spec, api),
        "NetworkSettings": object! { "Networks": networks(view) },
        "Mounts": Json::Array(spec.mounts.iter().filter(|mount| mount.kind != "tmpfs").map(mount).collect()),
    };
    if let Json::Object(rest) = rest {
        pairs.extend(rest);
    }
    Json::Object(pairs)
}

fn summary_host(spec: &ContainerSpec, api: (u32, u32)) -> Json {
    let mut pairs = vec![("NetworkMode".to_owned(), Json::from(spec.host.network_mode.clone()))];
    if api >= (1, 46) && !spec.host.annotations.is_empty() {
        pairs.push(("Annotations".into(), super::host::map(&spec.host.annotations)));
    }
    Json::Object(pairs)
}

fn command(view: &ContainerView) -> String {
    let quoted = view.args.iter().map(|word| {
        if word.contains([' ', '"', '\'']) || word.is_empty() { format!("'{}'", word.replace('\'', "'\"'\"'")) } else { word.clone() }
    });
    std::iter::once(view.path.clone()).chain(quoted).collect::<Vec<_>>().join(" ")
}

fn ports(view: &ContainerView) -> Vec<Json> {
    let mut rows = Vec::new();
    for (port, bindings) in &view.state.ports {
        for binding in bindings {
            let public = binding.host_port.parse::<u16>().unwrap_or(0);
            rows.push(object! { "IP": binding.host_ip.clone(), "PrivatePort": port.port, "PublicPort": public, "Type": port.protocol.to_string() });
        }
    }
    if view.state.status.is_running() {
        for text in &view.spec.config.exposed_ports {
            if let Ok(port) = text.parse::<sampan_engine::model::PortSpec>()
                && !view.state.ports.contains_key(&port)
            {
                rows.push(object! { "PrivatePort": port.port, "Type": port.protocol.to_string() });
            }
        }
    }
    rows
}

fn show_state(state: &State) -> Json {
    let mut pairs = object! {
        "Status": state.status.name(),
        "Running": state.status.is_running() || state.status == Status::Restarting,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error.clone(),
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
    }
    .pairs();
    if let Some(health) = &state.health {
        pairs.push(("Health".to_owned(), show_health(health)));
    }
    Json::Object(pairs)
}

fn show_health(health: &Health) -> Json {
    let result = |result: &ProbeResult| {
        object! { "Start": time(result.start), "End": time(result.end), "ExitCode": result.exit_code, "Output": result.output.clone() }
    };
    let log = health.log.iter().map(result).collect();
    object! { "Status": health.status.name(), "FailingStreak": health.failing_streak, "Log": Json::Array(log) }
}

/// `Up 2 hours`, `Exited (0) 3 minutes ago`, …
pub(crate) fn status(view: &ContainerView, now: i64) -> String {
    let state = &view.state;
    let since = |moment: i64| span((now - moment) / 1_000_000_000);
    match state.status {
        Status::Running => match &state.health {
            None => format!("Up {}", since(state.started_at)),
            Some(Health { status: HealthStatus::Starting, .. }) => format!("Up {} (health: starting)", since(state.started_at)),
            Some(health) => format!("Up {} ({})", since(state.started_at), health.status.name()),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Created => "Created".into(),
        Status::Exited if state.finished_at == 0 => "Created".into(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}
