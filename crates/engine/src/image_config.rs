//! An image's configuration in the engine's words, and back.

use sampan_oci::{ContainerConfig, Healthcheck, ImageConfig};

use crate::model::{Config, HealthProbe};

/// What an image presets.
pub(crate) fn from_image(image: &ImageConfig) -> Config {
    let config = &image.config;
    Config {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.keys().cloned().collect(),
        env: config.env.clone().unwrap_or_default(),
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        healthcheck: config.healthcheck.as_ref().map(|probe| HealthProbe {
            test: probe.test.clone(),
            interval: probe.interval,
            timeout: probe.timeout,
            start_period: probe.start_period,
            start_interval: probe.start_interval,
            retries: probe.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: config.volumes.keys().cloned().collect(),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        shell: config.shell.clone(),
        ..Config::default()
    }
}

/// What an image made of a container presets.
pub(crate) fn to_image(config: &Config) -> ContainerConfig {
    let empty = |names: &std::collections::BTreeSet<String>| names.iter().map(|name| (name.clone(), serde_json::json!({}))).collect();
    ContainerConfig {
        user: config.user.clone(),
        exposed_ports: empty(&config.exposed_ports),
        env: Some(config.env.clone()),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.as_ref().map(|probe| Healthcheck {
            test: probe.test.clone(),
            interval: probe.interval,
            timeout: probe.timeout,
            start_period: probe.start_period,
            start_interval: probe.start_interval,
            retries: probe.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: empty(&config.volumes),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        shell: config.shell.clone(),
        ..ContainerConfig::default()
    }
}
