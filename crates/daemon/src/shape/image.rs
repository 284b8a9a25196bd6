//! Images, volumes and networks as the API shows them.

use sampan_engine::model::{NetworkView, VolumeView};
use sampan_images::Image;
use sampan_oci::ContainerConfig;
use sampan_wire::{Json, object};

use super::{time, time_seconds};

/// The row of a list.
pub(crate) fn summary(image: &Image, containers: i64, shared: i64, api: (u32, u32)) -> Json {
    let mut pairs = object! {
        "Containers": containers,
        "Created": image.created(),
        "Id": image.id.to_string(),
        "Labels": labels(&image.config.config),
        "ParentId": image.parent.clone().unwrap_or_default(),
        "RepoDigests": Json::list(image.digests.iter().cloned()),
        "RepoTags": Json::list(image.references.iter().cloned()),
        "SharedSize": shared,
        "Size": image.size,
    }
    .pairs();
    if api < (1, 44) {
        pairs.push(("VirtualSize".into(), image.size.into()));
    }
    Json::Object(pairs)
}

/// The document of inspect. Its `Config` lost the fields that only containers have with 1.50.
pub(crate) fn inspect(image: &Image, api: (u32, u32)) -> Json {
    let layers = image.layers().iter().map(ToString::to_string);
    let mut pairs = object! {
        "Id": image.id.to_string(),
        "RepoTags": Json::list(image.references.iter().cloned()),
        "RepoDigests": Json::list(image.digests.iter().cloned()),
        "Parent": image.parent.clone().unwrap_or_default(),
        "Comment": image.config.comment.clone(),
        "Created": image.config.created.clone().unwrap_or_default(),
        "DockerVersion": "",
        "Author": image.config.author.clone(),
        "Architecture": image.config.architecture.clone(),
    }
    .pairs();
    let mut put = |key: &str, value: Json| pairs.push((key.to_owned(), value));
    if !image.config.variant.is_empty() {
        put("Variant", image.config.variant.clone().into());
    }
    put("Os", image.config.os.clone().into());
    put("Size", image.size.into());
    if api < (1, 44) {
        put("VirtualSize", image.size.into());
    }
    put("GraphDriver", object! { "Data": Json::NULL, "Name": "overlay2" });
    put("RootFS", object! { "Type": "layers", "Layers": Json::list(layers) });
    put("Metadata", object! { "LastTagTime": time(image.tagged) });
    put("Config", config(&image.config.config, api < (1, 50)));
    Json::Object(pairs)
}

fn labels(config: &ContainerConfig) -> Json {
    let labels = &config.labels;
    if labels.is_empty() { Json::NULL } else { Json::map(labels.iter().map(|(key, value)| (key.clone(), value.clone()))) }
}

/// The keys are in alphabetical order, as the original prints them.
fn config(config: &ContainerConfig, with_container_fields: bool) -> Json {
    let optional = |list: &Option<Vec<String>>| list.as_ref().map_or(Json::NULL, |list| Json::list(list.iter().cloned()));
    let keys = |map: &std::collections::BTreeMap<String, serde_json::Value>| super::set(map.keys().cloned());
    let mut fields: Vec<(&str, Json)> = vec![
        ("Cmd", optional(&config.cmd)),
        ("Entrypoint", optional(&config.entrypoint)),
        ("Env", optional(&config.env)),
        ("Labels", labels(config)),
        ("OnBuild", optional(&config.on_build)),
        ("User", config.user.clone().into()),
        ("Volumes", keys(&config.volumes)),
        ("WorkingDir", config.working_dir.clone().into()),
    ];
    if with_container_fields {
        fields.extend(["Domainname", "Hostname", "Image"].map(|key| (key, Json::from(""))));
        fields.extend(["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"].map(|key| (key, Json::from(false))));
    }
    if config.args_escaped {
        fields.push(("ArgsEscaped", true.into()));
    }
    if !config.exposed_ports.is_empty() {
        fields.push(("ExposedPorts", keys(&config.exposed_ports)));
    }
    if let Some(probe) = config.healthcheck.as_ref().and_then(|probe| serde_json::to_value(probe).ok()) {
        fields.push(("Healthcheck", probe.into()));
    }
    if config.shell.is_some() {
        fields.push(("Shell", optional(&config.shell)));
    }
    if !config.stop_signal.is_empty() {
        fields.push(("StopSignal", config.stop_signal.clone().into()));
    }
    fields.sort_by_key(|(key, _)| *key);
    Json::map(fields)
}

/// The body of a volume's create.
pub(crate) fn volume_request(fields: &sampan_wire::Fields) -> Result<sampan_engine::VolumeRequest, sampan_wire::FieldError> {
    Ok(sampan_engine::VolumeRequest {
        name: fields.text("Name")?,
        driver: fields.text("Driver")?,
        options: fields.map("DriverOpts")?,
        labels: fields.map("Labels")?,
    })
}

/// A volume.
pub(crate) fn volume(volume: &VolumeView) -> Json {
    let mut labels: Vec<(String, Json)> = volume.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if volume.anonymous {
        labels.push(("com.docker.volume.anonymous".into(), "".into()));
    }
    let mut pairs = object! {
        "CreatedAt": time_seconds(volume.created),
        "Driver": volume.driver.clone(),
        "Labels": if labels.is_empty() { Json::NULL } else { Json::Object(labels) },
        "Mountpoint": volume.mountpoint.clone(),
        "Name": volume.name.clone(),
        "Options": Json::NULL,
        "Scope": "local",
    }
    .pairs();
    if let Some((users, size)) = volume.usage {
        pairs.push(("UsageData".into(), object! { "RefCount": users, "Size": size }));
    }
    Json::Object(pairs)
}

/// A network.
pub(crate) fn network(network: &NetworkView) -> Json {
    let subnets = network.subnets.iter().map(|(subnet, gateway)| object! { "Subnet": subnet.clone(), "Gateway": gateway.clone() });
    let containers = network.containers.iter().map(|one| {
        let shown = object! { "Name": one.name.clone(), "EndpointID": one.endpoint_id.clone(), "MacAddress": one.mac.clone(), "IPv4Address": one.ipv4.clone(), "IPv6Address": "" };
        (one.id.clone(), shown)
    });
    object! {
        "Name": network.name.clone(),
        "Id": network.id.clone(),
        "Created": time(network.created),
        "Scope": "local",
        "Driver": network.driver.clone(),
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": object! { "Driver": "default", "Options": Json::NULL, "Config": Json::list_or_null(subnets) },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": object! { "Network": "" },
        "ConfigOnly": false,
        "Containers": Json::map(containers),
        "Options": Json::map(network.options.iter().map(|(key, value)| (key.clone(), value.clone()))),
        "Labels": Json::map(network.labels.iter().map(|(key, value)| (key.clone(), value.clone()))),
    }
}
