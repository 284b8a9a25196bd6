//! Images, volumes and networks as the API shows them.

use sampan_engine::model::{NetworkView, VolumeView};
use sampan_images::Image;
use sampan_oci::ContainerConfig;
use sampan_wire::{Json, object};

use super::{time, time_seconds};

/// The row of a list.
pub(crate) fn summary(image: &Image, containers: i64, shared: i64) -> Json {
    let labels = &image.config.config.labels;
    object! {
        "Containers": containers,
        "Created": image.created(),
        "Id": image.id.to_string(),
        "Labels": if labels.is_empty() { Json::NULL } else { Json::map(labels.iter().map(|(key, value)| (key.clone(), value.clone()))) },
        "ParentId": image.parent.clone().unwrap_or_default(),
        "RepoDigests": Json::Array(Vec::new()),
        "RepoTags": Json::list(image.references.iter().cloned()),
        "SharedSize": shared,
        "Size": image.size,
    }
}

/// The document of inspect.
pub(crate) fn inspect(image: &Image) -> Json {
    let layers = image.layers().iter().map(ToString::to_string);
    object! {
        "Id": image.id.to_string(),
        "RepoTags": Json::list(image.references.iter().cloned()),
        "RepoDigests": Json::Array(Vec::new()),
        "Parent": image.parent.clone().unwrap_or_default(),
        "Comment": image.config.comment.clone(),
        "Created": image.config.created.clone().unwrap_or_default(),
        "DockerVersion": "",
        "Author": image.config.author.clone(),
        "Config": config(&image.config.config),
        "Architecture": image.config.architecture.clone(),
        "Os": image.config.os.clone(),
        "Size": image.size,
        "GraphDriver": object! { "Data": Json::NULL, "Name": "overlay2" },
        "RootFS": object! { "Type": "layers", "Layers": Json::list(layers) },
        "Metadata": object! { "LastTagTime": time(image.tagged) },
    }
}

fn config(config: &ContainerConfig) -> Json {
    let optional = |list: &Option<Vec<String>>| list.as_ref().map_or(Json::NULL, |list| Json::list(list.iter().cloned()));
    let keys = |map: &std::collections::BTreeMap<String, serde_json::Value>| super::set(map.keys().cloned());
    let mut pairs: Vec<(String, Json)> = Vec::new();
    let mut put = |key: &str, value: Json| pairs.push((key.to_owned(), value));
    put("Hostname", "".into());
    put("Domainname", "".into());
    put("User", config.user.clone().into());
    put("AttachStdin", false.into());
    put("AttachStdout", false.into());
    put("AttachStderr", false.into());
    if !config.exposed_ports.is_empty() {
        put("ExposedPorts", keys(&config.exposed_ports));
    }
    put("Tty", false.into());
    put("OpenStdin", false.into());
    put("StdinOnce", false.into());
    put("Env", optional(&config.env));
    put("Cmd", optional(&config.cmd));
    put("Image", "".into());
    put("Volumes", keys(&config.volumes));
    put("WorkingDir", config.working_dir.clone().into());
    put("Entrypoint", optional(&config.entrypoint));
    put("OnBuild", optional(&config.on_build));
    let labels = &config.labels;
    put("Labels", if labels.is_empty() { Json::NULL } else { Json::map(labels.iter().map(|(key, value)| (key.clone(), value.clone()))) });
    if !config.stop_signal.is_empty() {
        put("StopSignal", config.stop_signal.clone().into());
    }
    Json::Object(pairs)
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
