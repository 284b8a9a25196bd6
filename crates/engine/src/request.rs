//! From a container's row to what the sandbox starts.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sampan_net::{PortRequest, Protocol};
use sampan_runtime::apparmor::DEFAULT_PROFILE;
use sampan_runtime::caps;
use sampan_runtime::cgroups::{DeviceRule, Limits};
use sampan_runtime::options::{LogPlan, MountSource, MountStep, Namespace, Options};
use sampan_sandbox::{Network, Running, StartRequest, Streams};

use crate::Engine;
use crate::devices;
use crate::error::EngineError;
use crate::model::{Config, ContainerSpec, EndpointView, HostConfig, MountPoint, PortBinding, PortProtocol, PortSpec, State};
use crate::options::security;
use crate::table::Container;

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;

impl Engine {
    /// Everything the sandbox needs of a container; takes the clients that wait for its start.
    pub(crate) fn start_request(&self, container: &Arc<Container>) -> Result<StartRequest, EngineError> {
        let (spec, pending) = {
            let mut facts = container.facts();
            (facts.spec.clone(), std::mem::take(&mut facts.pending))
        };
        let mut spec = spec;
        let files_of = self.share_names(&mut spec)?;
        let lowers = self.lowers(&spec)?;
        let host = &spec.host;
        let mut options = self.options(&spec)?;
        let joins = [self.join_pid(&host.pid_mode)?, self.join_ipc(&host.ipc_mode)?, String::new()];
        spec.mounts.iter().try_for_each(crate::subpath::check)?;
        options.mounts = self.mount_steps(&spec)?;
        let attachments = pending
            .into_iter()
            .map(|client| (client.socket, Streams { stdin: client.stdin, stdout: client.stdout, stderr: client.stderr }))
            .collect();
        let extra_hosts = host
            .extra_hosts
            .iter()
            .filter_map(|line| line.split_once([':', '=']))
            .map(|(name, ip)| (name.to_owned(), ip.to_owned()))
            .collect();
        Ok(StartRequest {
            id: spec.id.clone(),
            name: spec.name.clone(),
            lowers,
            folder: self.container_folder(&spec.id),
            options,
            network: self.wanted_network(&spec)?,
            joins,
            extra_hosts,
            dns: [host.dns.clone(), host.dns_search.clone(), host.dns_options.clone()],
            files_of,
            own_files: spec.mounts.iter().map(|mount| mount.destination.clone()).collect(),
            attachments,
            user: spec.config.user.clone(),
            groups: host.group_add.clone(),
            init: host.init.unwrap_or(self.config.init) && matches!(host.pid_mode.as_str(), "" | "private"),
            passing: false,
        })
    }

    /// A container in another's network has the other's names: hostname, and the folder with the files in /etc.
    fn share_names(&self, spec: &mut ContainerSpec) -> Result<Option<std::path::PathBuf>, EngineError> {
        let Some(id) = spec.host.network_mode.strip_prefix("container:") else { return Ok(None) };
        let donor = self.table().find(id)?;
        let facts = donor.facts();
        spec.config.hostname.clone_from(&facts.spec.config.hostname);
        spec.config.domainname.clone_from(&facts.spec.config.domainname);
        // The donor may itself be a guest.
        let owner = facts.spec.host.network_mode.strip_prefix("container:").unwrap_or(id);
        let folder = self.container_folder(owner);
        Ok(["hostname", "hosts", "resolv.conf"].iter().all(|name| folder.join(name).is_file()).then_some(folder))
    }

    /// The id of another container that runs, for `container:ID` modes; empty for others.
    ///
    /// # Errors
    /// There is no such container, or it does not run.
    pub fn join(&self, mode: &str, what: &str) -> Result<String, EngineError> {
        let Some(id) = mode.strip_prefix("container:") else { return Ok(String::new()) };
        let other = self.table().find(id)?;
        let facts = other.facts();
        if facts.state.pid == 0 {
            return Err(EngineError::Conflict(format!(
                "cannot join {what} namespace of a non running container: container {} is {}",
                facts.spec.name,
                facts.state.status.name()
            )));
        }
        Ok(facts.spec.id.clone())
    }

    fn join_pid(&self, mode: &str) -> Result<String, EngineError> {
        self.join(mode, "PID").map_err(|error| self.not_running(mode, error, "failed to join PID namespace: "))
    }

    /// Only who offered it shares its memory.
    fn join_ipc(&self, mode: &str) -> Result<String, EngineError> {
        let donor = self.join(mode, "IPC").map_err(|error| self.not_running(mode, error, ""))?;
        if let Some(id) = mode.strip_prefix("container:") {
            let other = self.table().find(id)?;
            if !matches!(other.facts().spec.host.ipc_mode.as_str(), "shareable" | "host") {
                let text = format!("container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)");
                return Err(EngineError::Invalid(text));
            }
        }
        Ok(donor)
    }

    /// The words for a donor of a namespace that does not run.
    fn not_running(&self, mode: &str, error: EngineError, prefix: &str) -> EngineError {
        match (error, mode.strip_prefix("container:")) {
            (EngineError::Conflict(_), Some(id)) => {
                EngineError::Room { text: format!("{prefix}container {id} is not running"), kind: sampan_base::ErrorKind::Internal }
            }
            (error, _) => error,
        }
    }

    fn wanted_network(&self, spec: &ContainerSpec) -> Result<Network, EngineError> {
        let mode = spec.host.network_mode.as_str();
        // Clients name another's network as it was typed; the mode has its id.
        let joins = |name: &str| name.starts_with("container:");
        let known = |name: &str| {
            name == mode || matches!((name, mode), ("default", "bridge") | ("bridge", "default" | "")) || (joins(name) && joins(mode))
        };
        if let Some(name) = spec.endpoints.keys().find(|name| !known(name)) {
            return Err(EngineError::NotFound(format!("failed to set up container networking: network {name} not found")));
        }
        if spec.config.network_disabled {
            return Ok(Network::None);
        }
        match spec.host.network_mode.as_str() {
            "host" => Ok(Network::Host),
            "none" => Ok(Network::None),
            "bridge" | "default" | "" => {
                let wish = spec.endpoints.get("bridge").or_else(|| spec.endpoints.get("default")).cloned().unwrap_or_default();
                if !wish.ipv4.is_empty() {
                    return Err(EngineError::Invalid("invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only".into()));
                }
                let mac = if wish.mac.is_empty() { &spec.config.mac_address } else { &wish.mac };
                Ok(Network::Bridge { ip: None, mac: parse_mac(mac), ports: ports(spec)? })
            }
            mode => match mode.strip_prefix("container:") {
                Some(_) => Ok(Network::Join(self.join(mode, "network")?)),
                None => Err(EngineError::NotFound(format!("failed to set up container networking: network {mode} not found"))),
            },
        }
    }

    /// The process and its confinement; mounts, user and paths are filled in later.
    pub(crate) fn options(&self, spec: &ContainerSpec) -> Result<Options, EngineError> {
        let (config, host) = (&spec.config, &spec.host);
        let security = security(&host.security_opt)?;
        let available = self.sandboxes().host().capabilities;
        let capabilities = caps::choose(&host.cap_add, &host.cap_drop, host.privileged, available)
            .map_err(|(_, name)| EngineError::Invalid(format!("unknown capability: {name}")))?;
        let mode = |text: &str| match text {
            "host" => Namespace::Host,
            text if text.starts_with("container:") => Namespace::Join,
            _ => Namespace::Private,
        };
        let unified = self.sandboxes().host().unified;
        let private_cgroup = match host.cgroupns_mode.as_str() {
            "private" => true,
            "host" => false,
            _ => unified && !host.privileged,
        };
        let mut devices = Vec::new();
        if host.privileged {
            devices.extend(devices::of_host());
        }
        for mapping in &host.resources.devices {
            devices.extend(devices::wanted(mapping)?);
        }
        Ok(Options {
            arguments: command_line(config),
            environment: environment(config),
            cwd: config.working_dir.clone(),
            terminal: config.tty,
            size: (host.console_size[1], host.console_size[0]),
            stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            privileged: host.privileged,
            capabilities,
            no_new_privileges: security.no_new_privileges,
            seccomp: security.seccomp,
            apparmor: match self.profile(host, &security.apparmor) {
                "unconfined" => String::new(),
                profile => profile.to_owned(),
            },
            readonly_root: host.readonly_rootfs,
            masked: host.masked_paths.clone(),
            readonly: host.readonly_paths.clone(),
            writable_cgroups: security.writable_cgroups,
            pid: mode(&host.pid_mode),
            ipc: mode(&host.ipc_mode),
            ipc_none: host.ipc_mode == "none",
            uts: if host.uts_mode == "host" || (host.network_mode == "host" && config.hostname.is_empty()) {
                Namespace::Host
            } else {
                Namespace::Private
            },
            cgroup_private: private_cgroup,
            shm_size: host.shm_size,
            devices,
            device_rules: host.resources.device_cgroup_rules.iter().map(|line| rule(line)).collect::<Result<_, _>>()?,
            limits: limits(host),
            ulimits: host.resources.ulimits.iter().map(ulimit).collect::<Result<_, _>>()?,
            oom_score_adj: (host.oom_score_adj != 0).then(|| i32::try_from(host.oom_score_adj).unwrap_or(0)),
            sysctls: host.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            log: self.log_plan(spec)?,
            ..Options::default()
        })
    }

    /// The AppArmor profile a container asks for, or gets without asking.
    pub(crate) fn profile<'a>(&self, host: &HostConfig, asked: &'a str) -> &'a str {
        match asked {
            "" if !self.sandboxes().host().apparmor => "",
            "" if host.privileged => "unconfined",
            "" => DEFAULT_PROFILE,
            asked => asked,
        }
    }

    pub(crate) fn log_path(&self, id: &str) -> std::path::PathBuf {
        self.container_folder(id).join(format!("{id}-json.log"))
    }

    fn log_plan(&self, spec: &ContainerSpec) -> Result<Option<LogPlan>, EngineError> {
        if spec.host.log.driver == "none" {
            return Ok(None);
        }
        let (max_size, max_files) = log_limits(&spec.host)?;
        let wanted = |key: &str| {
            spec.host.log.options.get(key).map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
        };
        let mut attributes = std::collections::BTreeMap::new();
        for label in wanted("labels") {
            if let Some(value) = spec.config.labels.get(&label) {
                attributes.insert(label, value.clone());
            }
        }
        for name in wanted("env") {
            if let Some(value) = spec.config.env.iter().find_map(|line| line.strip_prefix(&name)?.strip_prefix('=')) {
                attributes.insert(name, value.to_owned());
            }
        }
        let attributes = if attributes.is_empty() { String::new() } else { serde_json::to_string(&attributes).unwrap_or_default() };
        Ok(Some(LogPlan { path: self.log_path(&spec.id).display().to_string(), max_size, max_files, attributes }))
    }

    /// The container's own mounts, parents before children.
    pub(crate) fn mount_steps(&self, spec: &ContainerSpec) -> Result<Vec<MountStep>, EngineError> {
        let mut mounts: Vec<&MountPoint> = spec.mounts.iter().collect();
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        mounts.into_iter().map(mount_step).collect()
    }
}

fn mount_step(mount: &MountPoint) -> Result<MountStep, EngineError> {
    let target = mount.destination.clone();
    let readonly = if mount.rw { 0 } else { RDONLY };
    if mount.kind == "tmpfs" {
        return tmpfs_step(target, &mount.tmpfs_options);
    }
    let source = if mount.subpath.is_empty() {
        MountSource::Bind { path: mount.source.clone(), recursive: !mount.non_recursive }
    } else {
        MountSource::BindBeneath { directory: mount.source.clone(), path: mount.subpath.clone() }
    };
    let propagation = match mount.propagation.as_str() {
        "shared" => 2,
        "rshared" => 2 | 8,
        "slave" => 3,
        "rslave" => 3 | 8,
        "private" => 1,
        _ => 1 | 8,
    };
    Ok(MountStep {
        source,
        target,
        attributes: readonly,
        recursive: !mount.rw && !mount.read_only_non_recursive,
        propagation,
        ..MountStep::default()
    })
}

/// A tmpfs with the options of mount(8); noexec, nosuid and nodev unless they are taken back.
fn tmpfs_step(target: String, text: &str) -> Result<MountStep, EngineError> {
    let mut attributes = NOSUID | NODEV | NOEXEC;
    let mut options = vec![("source".to_owned(), "tmpfs".to_owned())];
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "exec" => attributes &= !NOEXEC,
            "noexec" => attributes |= NOEXEC,
            "suid" => attributes &= !NOSUID,
            "nosuid" => attributes |= NOSUID,
            "dev" => attributes &= !NODEV,
            "nodev" => attributes |= NODEV,
            "ro" => attributes |= RDONLY,
            "rw" | "defaults" | "relatime" | "noatime" | "private" | "rprivate" => {}
            other => match other.split_once('=') {
                Some((key @ ("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol"), value)) => {
                    options.push((key.to_owned(), value.to_owned()))
                }
                _ => return Err(EngineError::Invalid(format!("invalid tmpfs option [\"{other}\"]"))),
            },
        }
    }
    Ok(MountStep { source: MountSource::New { kind: "tmpfs".into(), options }, target, attributes, ..MountStep::default() })
}

/// Bytes and number of log files; a number without a size counts nothing, as in the original.
///
/// `local` keeps five files of 20 MB unless told otherwise; its files are those of `json-file`, which no client sees.
pub(crate) fn log_limits(host: &HostConfig) -> Result<(u64, u32), EngineError> {
    let options = &host.log.options;
    let is_local = host.log.driver == "local";
    let (size_default, files_default) = if is_local { (20 << 20, 5) } else { (0, 1) };
    let size = options
        .get("max-size")
        .map_or(Ok(size_default), |text| size(text).ok_or_else(|| EngineError::Invalid(format!("invalid size: '{text}'"))))?;
    let files = options.get("max-file").map_or(Ok(files_default), |text| {
        text.parse::<u32>().map_err(|_| EngineError::Invalid(format!("invalid value for max-file: '{text}'")))
    })?;
    if files == 0 {
        return Err(EngineError::Invalid("max-file cannot be less than 1".into()));
    }
    if options.get("compress").is_some_and(|value| value == "true") {
        return Err(EngineError::Unsupported("not supported: --log-opt compress".into()));
    }
    Ok((size, files))
}

/// `10m`, `1g`, `512`, in powers of 1024.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match lower[digits..].trim().trim_end_matches('b') {
        "" => 0,
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        _ => return None,
    };
    lower[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn command_line(config: &Config) -> Vec<String> {
    config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect()
}

/// PATH, HOSTNAME, TERM for terminals, then the configuration's; a name without `=` removes one.
fn environment(config: &Config) -> Vec<String> {
    let mut out =
        vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        out.push("TERM=xterm".into());
    }
    for line in &config.env {
        let key = line.split('=').next().unwrap_or_default().to_owned();
        let place = out.iter().position(|present| present.split('=').next() == Some(&key));
        match (line.contains('='), place) {
            (true, Some(place)) => out[place].clone_from(line),
            (true, None) => out.push(line.clone()),
            (false, Some(place)) => drop(out.remove(place)),
            (false, None) => {}
        }
    }
    out
}

/// Limits in the runtime's words.
pub(crate) fn limits(host: &HostConfig) -> Limits {
    let limits = &host.resources;
    Limits {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        memory_reservation: limits.memory_reservation,
        swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable.unwrap_or(false),
        nano_cpus: limits.nano_cpus,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        pids: limits.pids_limit,
        blkio_weight: limits.blkio_weight,
    }
}

/// Numbers of `RLIMIT_*` on Linux.
const ULIMITS: [(&str, u32); 15] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

/// The number of a limit of processes, by its name: `nofile`, …
#[must_use]
pub fn ulimit_number(name: &str) -> Option<u32> {
    ULIMITS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn ulimit(limit: &crate::model::Ulimit) -> Result<(u32, u64, u64), EngineError> {
    let known = ULIMITS.iter().find(|(name, _)| *name == limit.name);
    let (_, number) = known.ok_or_else(|| EngineError::Invalid(format!("invalid ulimit type: {}", limit.name)))?;
    let value = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    Ok((*number, value(limit.soft), value(limit.hard)))
}

/// `c 42:* rmw`.
fn rule(line: &str) -> Result<DeviceRule, EngineError> {
    let invalid = || EngineError::Invalid(format!("invalid device cgroup rule format: '{line}'"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, rights] = words[..] else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) };
    if rights.is_empty() || !rights.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return Err(invalid());
    }
    Ok(DeviceRule::new(kind.chars().next().unwrap_or('a'), number(major)?, number(minor)?, rights))
}

/// What is to be published.
fn ports(spec: &ContainerSpec) -> Result<Vec<PortRequest>, EngineError> {
    let mut out = Vec::new();
    let mut add = |port: PortSpec, binding: &PortBinding| {
        let protocol = match port.protocol {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
            PortProtocol::Sctp => return Err(EngineError::Unsupported("not supported: publishing of SCTP ports".into())),
        };
        let host_ip = match binding.host_ip.as_str() {
            "" => Ipv4Addr::UNSPECIFIED,
            text => {
                text.parse().map_err(|_| EngineError::Unsupported(format!("not supported: publishing on {text} (IPv4 only for now)")))?
            }
        };
        let invalid = || EngineError::Invalid(format!("invalid port specification: \"{}\"", binding.host_port));
        let host_ports = match binding.host_port.split_once('-') {
            None if binding.host_port.is_empty() => (0, 0),
            None => binding.host_port.parse().map(|port| (port, port)).map_err(|_| invalid())?,
            Some((first, last)) => (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?),
        };
        out.push(PortRequest { protocol, container_port: port.port, host_ip, host_ports });
        Ok(())
    };
    for (port, bindings) in &spec.host.port_bindings {
        if bindings.is_empty() {
            add(*port, &PortBinding::default())?;
        }
        for binding in bindings {
            add(*port, binding)?;
        }
    }
    if spec.host.publish_all_ports {
        for port in spec.config.exposed_ports.iter().filter_map(|text| text.parse::<PortSpec>().ok()) {
            if !spec.host.port_bindings.contains_key(&port) {
                add(port, &PortBinding::default())?;
            }
        }
    }
    // Fixed ports first: a free one that is looked for must not take them away.
    out.sort_by_key(|request| request.host_ports.0 == 0);
    Ok(out)
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

/// Writes the network of a started container into its state.
pub(crate) fn remember_network(state: &mut State, id: &str, running: &Running) {
    state.ports.clear();
    state.endpoints.clear();
    let Some(endpoint) = &running.endpoint else { return };
    for binding in &endpoint.ports {
        let protocol = match binding.protocol {
            Protocol::Tcp => PortProtocol::Tcp,
            Protocol::Udp => PortProtocol::Udp,
        };
        let port = PortSpec { port: binding.container_port, protocol };
        let host = PortBinding { host_ip: binding.host_ip.to_string(), host_port: binding.host_port.to_string() };
        state.ports.entry(port).or_default().push(host);
    }
    let mac = endpoint.mac.map(|byte| format!("{byte:02x}")).join(":");
    let view = EndpointView {
        network_id: String::new(),
        endpoint_id: sampan_sandbox::endpoint_id(id),
        gateway: endpoint.gateway.to_string(),
        ip: endpoint.ip.to_string(),
        prefix_len: endpoint.prefix,
        mac,
    };
    state.endpoints.insert("bridge".into(), view);
}
