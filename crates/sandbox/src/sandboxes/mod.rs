//! All sandboxes of a daemon: start, adoption, clearing.
//!
//! What is done to one that runs is in [`alive`], to one that does not in [`rest`].

mod alive;
mod beginning;
mod rest;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use sampan_base::{ErrorKind, Failure as _};
use sampan_net::{EndpointSpec, Net};
use sampan_runtime::apparmor::{self, DEFAULT_PROFILE};
use sampan_runtime::cgroups;
use sampan_runtime::options::{Namespace, Options};
use sampan_runtime::shims::{ShimEvent, Shims};
use sampan_runtime::users::{self, User};
use sampan_runtime::{Host, plan};
use sampan_shim::plan::{MountSource, MountStep};
use sampan_shim::record::ExitRecord;
use sampan_sys::{dir, ns};

use crate::error::StartError;
use crate::start::{Network, Running, StartRequest};

/// How long a daemon that starts waits for a shim.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a daemon keeps its sandboxes.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The data root: the small init is kept below it.
    pub data_root: PathBuf,
    /// Sockets, one folder a container.
    pub exec_root: PathBuf,
    /// Parent of all cgroups, in every hierarchy.
    pub cgroup_parent: String,
}

/// What happened on its own.
pub type SandboxEvent = ShimEvent;

/// What became of a container that an earlier daemon started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It lives.
    Running {
        /// Process 1.
        pid: u32,
    },
    /// It ended and left a record.
    Exited(ExitRecord),
    /// It is gone without a record.
    Lost,
}

/// All sandboxes.
#[derive(Debug)]
pub struct Sandboxes {
    config: SandboxConfig,
    host: Host,
    shims: Arc<Shims>,
    net: Option<Arc<Net>>,
    running: Mutex<HashMap<String, Alive>>,
    init: PathBuf,
}

/// A container that runs.
#[derive(Debug)]
struct Alive {
    /// What it was started with, for execs.
    options: Options,
    /// Process 1.
    pid: u32,
    /// When it became its program; `None`: under an earlier daemon.
    since: Option<Instant>,
}

impl Sandboxes {
    /// Makes the parent cgroup and the shim ready. Without `net` containers cannot have a bridge.
    ///
    /// # Errors
    /// A failing disk or kernel.
    pub fn open(config: SandboxConfig, net: Option<Arc<Net>>) -> io::Result<(Self, Receiver<SandboxEvent>)> {
        let host = Host::detect();
        sampan_layers::private_directory(&config.exec_root.join("containers"))?;
        cgroups::prepare_parent(&host, &config.cgroup_parent)?;
        let (shims, events) = Shims::open(&config.exec_root)?;
        let init = keep_init(&config.data_root)?;
        Ok((Self { config, host, shims, net, running: Mutex::default(), init }, events))
    }

    /// Facts of the host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the kernel can prefer one container's block traffic to another's.
    #[must_use]
    pub fn weighs_blocks(&self) -> bool {
        cgroups::weighs_blocks(&self.host, &self.config.cgroup_parent)
    }

    pub(crate) fn shims(&self) -> &Shims {
        &self.shims
    }

    /// The cgroup of a container, in every hierarchy.
    #[must_use]
    pub fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.config.cgroup_parent.trim_matches('/'))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Alive>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// [`StartError`]; nothing of it is left then but its folder.
    pub fn start(&self, request: StartRequest) -> Result<Running, StartError> {
        let id = request.id.clone();
        let started = self.start_inner(request);
        if started.is_err() {
            self.cleanup(&id);
        }
        started
    }

    fn start_inner(&self, mut request: StartRequest) -> Result<Running, StartError> {
        let internal = |text: &str| {
            let text = text.to_owned();
            move |error: io::Error| StartError::other(format!("{text}: {error}"), ErrorKind::Internal)
        };
        let id = request.id.clone();
        let folder = self.shims.folder(&id);
        let place = folder.join("root");
        sampan_layers::private_directory(&place).map_err(internal("make the runtime folder"))?;
        let root = self.mount_root(&request.lowers, Some(&request.folder)).map_err(internal("mount the container's root"))?;
        request.options.user = resolve_user(&root, &request.user, &request.groups)?;
        complete_environment(&mut request.options);
        let (netns, endpoint) = self.network(&request)?;
        let gateway = endpoint.as_ref().map(|endpoint| endpoint.gateway.to_string()).unwrap_or_default();
        let address = endpoint.as_ref().map(|endpoint| endpoint.ip.to_string()).unwrap_or_default();
        write_files(&mut request, &address, &gateway).map_err(internal("write the container's files"))?;
        let options = &mut request.options;
        options.id.clone_from(&id);
        options.cgroup = self.cgroup(&id);
        options.root_place = place.display().to_string();
        options.socket = folder.join("shim.sock").display().to_string();
        let record = if request.passing { folder.join("exit") } else { request.folder.join("exit") };
        options.record = record.display().to_string();
        options.net = if request.network == Network::Host { Namespace::Host } else { Namespace::Join };
        self.settle_profile(options)?;
        options.init = request.init.then(|| self.init.display().to_string());
        let given = self.open_joins(options, &request.joins, netns).map_err(internal("open the namespaces of another container"))?;
        let plan = plan::container(options, &self.host).map_err(|error| StartError::plan(&error))?;
        drop(std::fs::remove_file(&record));
        let program = options.arguments.first().cloned().unwrap_or_default();
        let borrowed: Vec<BorrowedFd<'_>> = given.iter().map(OwnedFd::as_fd).collect();
        let pid =
            self.shims.start(&plan, root.as_fd(), &borrowed, request.attachments).map_err(|error| StartError::start(error, &program))?;
        self.running().insert(id, Alive { options: request.options, pid, since: Some(Instant::now()) });
        Ok(Running { pid, endpoint })
    }

    /// Loads the default AppArmor profile if the kernel lacks it. Where it cannot be compiled a container runs without.
    fn settle_profile(&self, options: &mut Options) -> Result<(), StartError> {
        if options.apparmor != DEFAULT_PROFILE {
            return Ok(());
        }
        match apparmor::ensure_default() {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                options.apparmor.clear();
                Ok(())
            }
            Err(error) => Err(StartError::other(
                format!("AppArmor enabled on system but the {DEFAULT_PROFILE} profile could not be loaded: {error}"),
                ErrorKind::Internal,
            )),
        }
    }

    /// Why containers run without the default AppArmor profile, if they do.
    #[must_use]
    pub fn profile_warning(&self) -> Option<String> {
        if !self.host.apparmor {
            return None;
        }
        let error = apparmor::ensure_default().err()?;
        Some(format!("WARNING: AppArmor is on, but the {DEFAULT_PROFILE} profile of containers cannot be loaded: {error}"))
    }

    /// The network namespace of a container; `None` for the host's.
    fn network(&self, request: &StartRequest) -> Result<(Option<OwnedFd>, Option<sampan_net::Endpoint>), StartError> {
        let failed = |error: sampan_net::NetError| {
            StartError::other(format!("failed to set up container networking: {}", chain(&error)), error.kind())
        };
        match &request.network {
            Network::Host => Ok((None, None)),
            Network::None => Net::isolated().map(|netns| (Some(netns), None)).map_err(failed),
            Network::Join(other) => match self.lend(other, |pid| ns::of_process(pid, "net")) {
                Ok(netns) => Ok((Some(netns), None)),
                Err(error) => {
                    Err(StartError::other(format!("cannot join network of a non running container: {error}"), ErrorKind::Conflict))
                }
            },
            Network::Bridge { ip, mac, ports } => {
                let Some(net) = &self.net else { return Err(StartError::other("the default bridge is disabled", ErrorKind::Invalid)) };
                let spec = EndpointSpec {
                    container: request.id.clone(),
                    endpoint: endpoint_id(&request.id),
                    name: request.name.clone(),
                    ip: *ip,
                    mac: *mac,
                    ports: ports.clone(),
                };
                net.connect(&spec).map(|(netns, endpoint)| (Some(netns), Some(endpoint))).map_err(failed)
            }
        }
    }

    /// Takes over a container that an earlier daemon started. `options` are what it was started with. What is frozen and was not
    /// `paused` by anyone is thawed: that daemon was killed while it committed the container.
    #[must_use]
    pub fn adopt(&self, id: &str, folder: &Path, mut options: Options, paused: bool) -> Adopted {
        if !paused {
            drop(self.freeze(id, false));
        }
        if let Some(pid) = self.find_shim(id, paused) {
            if apparmor::profile_of(pid).is_none() {
                options.apparmor.clear();
            }
            self.running().insert(id.to_owned(), Alive { options, pid, since: None });
            return Adopted::Running { pid };
        }
        match ExitRecord::read(&folder.join("exit")) {
            Ok(Some(record)) => Adopted::Exited(record),
            _ => {
                self.kill_all(id);
                Adopted::Lost
            }
        }
    }

    /// Process 1 of a container whose shim lives. One that an earlier daemon had just begun may not listen yet: it is waited for.
    fn find_shim(&self, id: &str, paused: bool) -> Option<u32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.shims.connect(id, if paused { PATIENCE / 10 } else { PATIENCE }) {
                Ok((pid, _)) => return Some(pid).filter(|pid| *pid != 0),
                Err(_) if self.await_shim(id, 1) => return None,
                // It may wait for a further process that was frozen before it had become its program.
                Err(_) if paused => {
                    drop(self.freeze(id, false));
                    let found = self.find_shim(id, false);
                    drop(self.freeze(id, true));
                    return found;
                }
                Err(_) => {}
            }
        }
        tracing::error!(container = id, "a shim does not answer");
        None
    }

    /// Waits for the end of a shim, as often as said for a few milliseconds; says whether it is gone.
    fn await_shim(&self, id: &str, tries: u32) -> bool {
        let pause = sampan_base::Cancel::new();
        for _ in 0..tries {
            if !self.shims.is_alive(id) {
                return true;
            }
            let _timed_out = pause.wait_timeout(Duration::from_millis(5));
        }
        false
    }

    /// Undoes a start that was never acknowledged: kills what runs, and leaves the container as it was before.
    pub fn abandon(&self, id: &str, folder: &Path) {
        self.running().remove(id);
        self.shims.forget(id);
        self.kill_all(id);
        if !self.await_shim(id, 2000) {
            tracing::warn!(container = id, "a shim does not end");
        }
        self.cleanup(id);
        drop(std::fs::remove_file(folder.join("exit")));
    }

    /// Clears what a daemon that was killed left of containers that do not run: `known` ones, and what lies in the exec root.
    pub fn sweep(&self, known: &[String], living: &std::collections::HashSet<String>) {
        let folders = std::fs::read_dir(self.config.exec_root.join("containers")).into_iter().flatten().flatten();
        let folders: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let has_cgroup = |id: &&String| cgroups::exists(&self.host, &self.cgroup(id));
        let left: std::collections::HashSet<&String> = folders.iter().chain(known.iter().filter(has_cgroup)).collect();
        for id in left.into_iter().filter(|id| !living.contains(*id)) {
            self.kill_all(id);
            self.await_shim(id, 2000);
            self.cleanup(id);
        }
    }

    /// Takes over the network places of containers that live on.
    ///
    /// # Errors
    /// When the firewall cannot be loaded.
    pub fn adopt_network(&self, living: Vec<(String, sampan_net::Endpoint)>) -> Result<(), StartError> {
        match &self.net {
            Some(net) => net.adopt(living).map_err(|error| StartError::other(chain(&error), error.kind())),
            None => Ok(()),
        }
    }

    /// Kills everything in a container's cgroup: for when its shim is gone. What forks meanwhile is caught by the next round.
    pub fn kill_all(&self, id: &str) {
        if self.host.unified {
            drop(std::fs::write(self.host.cgroup_directory("", &self.cgroup(id)).join("cgroup.kill"), "1"));
        }
        for _ in 0..16 {
            let processes = self.processes(id);
            if processes.is_empty() {
                return;
            }
            for pid in processes {
                if let Ok(pidfd) = sampan_sys::process::pidfd_open(pid) {
                    drop(sampan_sys::process::send_signal(pidfd.as_fd(), 9));
                }
            }
            // A frozen process of v1 dies only when it is thawed; a container that is not frozen does not mind.
            drop(self.freeze(id, false));
        }
    }

    /// Removes the parent of all cgroups, if nothing is in it.
    pub fn remove_parent(&self) {
        cgroups::remove_empty(&self.host, &self.config.cgroup_parent);
    }

    /// Clears what an ended container left: shim, network, cgroup, sockets.
    pub fn cleanup(&self, id: &str) {
        self.running().remove(id);
        self.shims.forget(id);
        if let Some(net) = &self.net {
            net.disconnect(id);
        }
        self.kill_all(id);
        cgroups::remove(&self.host, &self.cgroup(id));
        drop(std::fs::remove_dir_all(self.shims.folder(id)));
    }
}

/// The id of a container's place on the default bridge: the same whenever it is asked.
#[must_use]
pub fn endpoint_id(container: &str) -> String {
    sampan_oci::Digest::sha256_of(format!("endpoint {container}").as_bytes()).hex().to_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {}", chain(source)),
        _ => error.to_string(),
    }
}

/// The small init as a file: a memfd cannot be bind-mounted.
fn keep_init(data_root: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Shims::program();
    let sum = program.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let path = data_root.join("bin").join(format!("shim-{sum:016x}"));
    if path.metadata().is_ok_and(|facts| facts.len() == program.len() as u64) {
        return Ok(path);
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, program)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&temporary, &path)?;
    Ok(path)
}

/// Looks a user up in a container's root.
fn resolve_user(root: &OwnedFd, user: &str, groups: &[String]) -> Result<User, StartError> {
    // An image without these files, or with something else there, has no users.
    let text = |path: &[u8]| read_regular(root, path).unwrap_or_default();
    users::resolve(user, groups, &text(b"etc/passwd"), &text(b"etc/group"))
        .map_err(|error| StartError::other(error.to_string(), ErrorKind::Invalid))
}

/// Reads a small text inside a container's root. It is looked at before it is opened: opening a device or a pipe of a hostile image
/// could do something.
fn read_regular(root: &OwnedFd, path: &[u8]) -> io::Result<String> {
    const LIMIT: u64 = 8 << 20;
    /// The magic number of procfs: some of its files take what they give away, or wait for ever.
    const PROCFS: u64 = 0x9fa0;
    let place = dir::open_in(root.as_fd(), path, OFlags::PATH)?;
    let is_file = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode).is_file();
    if !is_file || u64::try_from(rustix::fs::fstatfs(&place)?.f_type).is_ok_and(|kind| kind == PROCFS) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds what every process has: PATH first, HOME last.
fn complete_environment(options: &mut Options) {
    let has = |options: &Options, key: &str| options.environment.iter().any(|line| line.split('=').next() == Some(key));
    // An empty one is none.
    options.environment.retain(|line| line != "HOME=");
    if !has(options, "HOME") {
        let home = format!("HOME={}", options.user.home);
        options.environment.push(home);
    }
    if !has(options, "PATH") {
        options.environment.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
}

/// Writes hostname, hosts and resolv.conf, and mounts them unless the user mounts something there.
///
/// A container in another's network namespace gets the other's files.
fn write_files(request: &mut StartRequest, address: &str, gateway: &str) -> io::Result<()> {
    if let Some(folder) = request.files_of.clone() {
        FILES.iter().for_each(|name| mount_file(request, &folder, name));
        return Ok(());
    }
    let mut hostname = request.options.hostname.clone();
    if hostname.is_empty() && request.network == Network::Host {
        hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if request.network == Network::Host {
        hosts = std::fs::read_to_string("/etc/hosts").unwrap_or(hosts);
    }
    for (name, ip) in &request.extra_hosts {
        let ip = if ip == "host-gateway" { gateway } else { ip };
        let _infallible = writeln!(hosts, "{ip}\t{name}");
    }
    if !address.is_empty() && !hostname.is_empty() {
        let full = match (request.options.domainname.as_str(), hostname.split_once('.')) {
            ("", Some((short, _))) => format!("{hostname} {short}"),
            ("", None) => hostname.clone(),
            (domain, _) => format!("{hostname}.{domain} {hostname}"),
        };
        let _infallible = writeln!(hosts, "{address}\t{full}");
    }
    let resolv = resolv_conf(request);
    let folder = request.folder.clone();
    for (name, content) in FILES.into_iter().zip([format!("{hostname}\n"), hosts, resolv]) {
        std::fs::write(folder.join(name), content)?;
        mount_file(request, &folder, name);
    }
    Ok(())
}

/// What we write for a container, to be found in its /etc.
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Mounts one of these files; a read-only root has them read-only, too.
fn mount_file(request: &mut StartRequest, folder: &Path, name: &str) {
    let target = format!("/etc/{name}");
    if request.own_files.contains(&target) {
        return;
    }
    let source = MountSource::Bind { path: folder.join(name).display().to_string(), recursive: false };
    let attributes = if request.options.readonly_root { sampan_sys::mount::Attributes::RDONLY.bits() } else { 0 };
    request.options.mounts.push(MountStep { source, target, propagation: 1, attributes, ..MountStep::default() });
}

fn resolv_conf(request: &StartRequest) -> String {
    let [servers, search, options] = &request.dns;
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if request.network == Network::Host && servers.is_empty() && search.is_empty() && options.is_empty() {
        return host;
    }
    let from_host =
        |key: &str| host.lines().filter_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned()).collect::<Vec<_>>();
    let mut servers = servers.clone();
    if servers.is_empty() {
        // A name server on the host's loopback cannot be reached from another network namespace.
        servers = from_host("nameserver ").into_iter().filter(|server| !server.starts_with("127.") && server != "::1").collect();
    }
    if servers.is_empty() && request.network != Network::None {
        servers = vec!["8.8.8.8".into(), "8.8.4.4".into()];
    }
    let search = if search.is_empty() { from_host("search ") } else { vec![search.join(" ")] };
    let options = if options.is_empty() { from_host("options ") } else { vec![options.join(" ")] };
    let mut out = String::from(
        "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once it\n# has been modified.\n\n",
    );
    for (key, values) in [("nameserver", &servers), ("search", &search), ("options", &options)] {
        for value in values.iter().filter(|value| !value.is_empty() && value.as_str() != ".") {
            let _infallible = writeln!(out, "{key} {value}");
        }
    }
    let [own_servers, own_search, own_options] = &request.dns;
    out.push_str("\n# Based on host file: '/etc/resolv.conf' (legacy)\n");
    let overrides: Vec<&str> = [("nameservers", own_servers), ("search", own_search), ("options", own_options)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, _)| name)
        .collect();
    let _infallible = writeln!(out, "# Overrides: [{}]", overrides.join(" "));
    if own_options.iter().any(|option| option.starts_with("ndots:")) {
        out.push_str("# Option ndots from: override\n");
    }
    out
}
