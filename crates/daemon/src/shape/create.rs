//! `Config`, both ways, and the body of create.

use std::collections::BTreeMap;

use sampan_engine::CreateRequest;
use sampan_engine::model::{Config, EndpointRequest, ExecRequest, HealthProbe};
use sampan_wire::{FieldError, Fields, Json, object};

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
    let size = fields.get("ConsoleSize").and_then(serde_json::Value::as_array).cloned();
    let cell = |list: &[serde_json::Value], index: usize| {
        list.get(index).and_then(serde_json::Value::as_u64).and_then(|value| u16::try_from(value).ok()).unwrap_or(0)
    };
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
        console_size: size.map(|list| [cell(&list, 0), cell(&list, 1)]),
    })
}

fn optional(list: Option<&Vec<String>>) -> Json {
    list.map_or(Json::NULL, |list| Json::list(list.iter().cloned()))
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
        put(
            "Healthcheck",
            object! { "Test": Json::list(probe.test.iter().cloned()), "Interval": probe.interval, "Timeout": probe.timeout, "Retries": probe.retries },
        );
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
