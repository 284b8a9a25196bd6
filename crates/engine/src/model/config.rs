//! What runs: the part of a container that an image can preset.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The portable half of a container's configuration.
///
/// In a create request empty values mean "as the image says"; in a stored container they are final.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Host name inside the UTS namespace; empty: the first twelve digits of the id.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// Whether the creator means to attach standard input.
    pub attach_stdin: bool,
    /// Whether the creator means to attach standard output.
    pub attach_stdout: bool,
    /// Whether the creator means to attach standard error.
    pub attach_stderr: bool,
    /// Ports the program listens on, as `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// Whether a pseudo-terminal replaces the three pipes.
    pub tty: bool,
    /// Whether standard input stays open without a client.
    pub open_stdin: bool,
    /// Whether standard input closes when the first client leaves.
    pub stdin_once: bool,
    /// `KEY=value`, or `KEY` to remove an inherited one.
    pub env: Vec<String>,
    /// Arguments; `None`: the image's.
    pub cmd: Option<Vec<String>>,
    /// Health probe; `None`: the image's.
    pub healthcheck: Option<HealthProbe>,
    /// Windows only; kept because images carry it.
    pub args_escaped: bool,
    /// The image as the user named it.
    pub image: String,
    /// Paths that get an anonymous volume.
    pub volumes: BTreeSet<String>,
    /// Working directory; created when missing.
    pub working_dir: String,
    /// Program that `cmd` is given to; `None`: the image's, `Some([""])`: none.
    pub entrypoint: Option<Vec<String>>,
    /// Whether the container gets no network at all.
    pub network_disabled: bool,
    /// Wanted hardware address of the first endpoint.
    pub mac_address: String,
    /// Triggers for builds on top; kept because images carry them.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end; empty: `SIGTERM`.
    pub stop_signal: String,
    /// Seconds between the stop signal and the kill; `None`: the daemon's default; negative: for ever.
    pub stop_timeout: Option<i64>,
    /// Shell of shell-form instructions.
    pub shell: Option<Vec<String>>,
}

/// How a container's health is probed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthProbe {
    /// As in the API: `[]` inherit, `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Nanoseconds between probes; 0: 30 s.
    pub interval: i64,
    /// Nanoseconds a probe may take; 0: 30 s.
    pub timeout: i64,
    /// Nanoseconds of start-up during which failures do not count.
    pub start_period: i64,
    /// Nanoseconds between probes during the start period; 0: 5 s.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0: 3.
    pub retries: i64,
}
