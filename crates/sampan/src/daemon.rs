//! `sampan daemon`: puts the rooms together and serves until a signal.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sampan_build::Builder;
use sampan_daemon::{Listener, ServerConfig, serve};
use sampan_engine::{Engine, EngineConfig, EventBus};
use sampan_images::Images;
use sampan_net::{Net, NetConfig};
use sampan_store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::options::Options;
use crate::start;

/// `daemon`, `daemon status`, `daemon stop`.
pub(crate) fn main(words: &[String], as_dockerd: bool) -> anyhow::Result<()> {
    match words.first().map(String::as_str) {
        Some("status") => status(&words[1..]),
        Some("stop") => stop(&words[1..]),
        _ => run(&Options::parse(words, as_dockerd)?),
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the daemon needs root: try sudo");
    }
    if options.started_by_client {
        // Locks and pipes of the shell that typed the command are not ours to hold.
        sampan_sys::process::close_inherited_from(3).context("close what was inherited")?;
    }
    // Files of containers are readable by their users whatever the shell's mask was.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let level = if options.log_level == "fatal" { "error" } else { &options.log_level };
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(false).init();
    // Before anything is touched: the network and the sockets of a daemon that runs are its own.
    for host in &options.hosts {
        refuse_taken(host)?;
    }
    make_exec_root(&options.exec_root)?;
    let lock = sampan_sys::file::try_lock_directory(&options.exec_root);
    let lock = lock.with_context(|| format!("lock the runtime directory {}", options.exec_root.display()))?;
    let Some(_held_while_we_live) = lock else {
        bail!("another daemon uses the runtime directory {}: stop it, or give --exec-root another directory", options.exec_root.display());
    };
    let apart = if options.started_by_client { Some(start::come_apart(&options.cgroup_parent)) } else { None };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(128).enable_all().build()?;
    let (engine, builder) = build(options, runtime.handle())?;
    let listeners = options.hosts.iter().map(|host| listen(host, &options.group)).collect::<anyhow::Result<Vec<_>>>()?;
    std::fs::write(&options.pidfile, std::process::id().to_string()).with_context(|| format!("write {}", options.pidfile.display()))?;
    let stop_containers = runtime.block_on(until_signal(listeners, (Arc::clone(&engine), builder), options.started_by_client))?;
    engine.shutdown(stop_containers || !options.live_restore);
    drop(std::fs::remove_file(&options.pidfile));
    for socket in options.hosts.iter().filter_map(|host| host.strip_prefix("unix://")) {
        drop(std::fs::remove_file(socket));
        drop(std::fs::remove_file(format!("{socket}.files")));
    }
    runtime.shutdown_background();
    drop(apart);
    Ok(())
}

/// Opens every room, lowest first.
fn build(options: &Options, runtime: &tokio::runtime::Handle) -> anyhow::Result<(Arc<Engine>, Arc<Builder>)> {
    let store = Arc::new(Store::open(&options.data_root)?);
    let instance = instance(&options.data_root);
    let net = if options.bridge == "none" { None } else { Some(Arc::new(open_net(options, &instance)?)) };
    if let Some(net) = &net {
        net.watch()?;
    }
    let events = Arc::new(EventBus::default());
    let registries = sampan_transfer::Client::new(runtime.clone(), registries(options)).context("make the registry client ready")?;
    let images = Images::open(Arc::clone(&store), Arc::clone(&events) as _).with_client(registries.clone());
    let images = Arc::new(images.with_limits(options.max_concurrent_downloads, options.max_concurrent_uploads));
    let config = EngineConfig {
        exec_root: options.exec_root.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        live_restore: options.live_restore,
        init: options.init,
        registry_mirrors: options.registry_mirrors.clone(),
        insecure_registries: options.insecure_registries.clone(),
    };
    let engine = Engine::open(config, Arc::clone(&store), images, net, events)?;
    for warning in engine.warnings() {
        tracing::warn!("{}", warning.trim_start_matches("WARNING: "));
    }
    let builder = Builder::open(store, Arc::clone(engine.images()), engine.shared_sandboxes()).context("make the builder ready")?;
    Ok((engine, Arc::new(builder.with_client(registries))))
}

/// How registries are reached.
#[allow(clippy::disallowed_methods, reason = "the composition root reads the environment")]
fn registries(options: &Options) -> sampan_transfer::Config {
    let either = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    sampan_transfer::Config {
        user_agent: format!("sampan/{}", env!("CARGO_PKG_VERSION")),
        mirrors: options.registry_mirrors.clone(),
        insecure: options.insecure_registries.clone(),
        certs_dirs: ["/etc/sampan/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
        proxies: sampan_transfer::Proxies { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), no_proxy: either("NO_PROXY") },
        timing: sampan_transfer::Timing {
            download_attempts: options.max_download_attempts.map_or(5, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            ..sampan_transfer::Timing::default()
        },
    }
}

/// What tells daemons of different data roots apart.
fn instance(data_root: &Path) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(data_root.as_os_str().as_encoded_bytes())[..4])
}

fn open_net(options: &Options, instance: &str) -> anyhow::Result<Net> {
    let subnet =
        if options.bip.is_empty() { None } else { Some(options.bip.parse().with_context(|| format!("invalid --bip {}", options.bip))?) };
    let bridge = match options.bridge.as_str() {
        "" => {
            // The machine's own Docker may have docker0: then ours has another name, remembered by the link itself.
            let taken = Path::new("/sys/class/net/docker0").exists() && Path::new("/run/docker.sock").exists();
            if taken { "sampan0".to_owned() } else { "docker0".to_owned() }
        }
        name => name.to_owned(),
    };
    Ok(Net::open(NetConfig { instance: instance.to_owned(), bridge, subnet, mtu: options.mtu })?)
}

fn make_exec_root(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    // EXECROOT/containers/ID/shim.sock must fit into a socket's address of 107 bytes.
    const LONGEST: usize = 107 - "/containers//shim.sock".len() - 64;
    let length = path.as_os_str().len();
    if length > LONGEST {
        bail!(
            "the runtime directory {} is too long ({length} bytes): containers have sockets below it, whose addresses are short; give --exec-root at most {LONGEST} bytes, such as /run/sampan2",
            path.display()
        );
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).with_context(|| format!("make {}", path.display()))
}

/// Refuses a socket at which somebody answers.
fn refuse_taken(host: &str) -> anyhow::Result<()> {
    match host.strip_prefix("unix://") {
        Some(path) if UnixStream::connect(path).is_ok() => {
            bail!("another daemon answers at {path}: stop it, or give --host another socket")
        }
        _ => Ok(()),
    }
}

fn listen(host: &str, group: &str) -> anyhow::Result<Listener> {
    let Some(path) = host.strip_prefix("unix://") else {
        bail!("not supported: --host {host} (unix sockets only; TCP with mutual TLS comes later)");
    };
    let path = PathBuf::from(path);
    refuse_taken(host)?;
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse::<u32>().ok())?
    });
    if let Some(gid) = gid {
        std::os::unix::fs::chown(&path, None, Some(gid))?;
    }
    Ok(Listener::Unix(listener))
}

/// Serves until SIGTERM or SIGINT (containers as configured) or SIGUSR2 (containers are stopped).
async fn until_signal(
    listeners: Vec<Listener>,
    (engine, builder): (Arc<Engine>, Arc<Builder>),
    client_waits: bool,
) -> anyhow::Result<bool> {
    let (tell, shutdown) = watch::channel(false);
    let config = ServerConfig { listeners, engine, builder, shutdown, version: env!("CARGO_PKG_VERSION").to_owned() };
    let server = tokio::spawn(serve(config));
    let (mut terminate, mut interrupt, mut all) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::user_defined2())?);
    tracing::info!("the engine is ready");
    if client_waits {
        start::tell_ready();
    }
    let stop_containers = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        _ = all.recv() => true,
    };
    let _nobody_listens = tell.send(true);
    drop(server.await);
    Ok(stop_containers)
}

/// Asks the socket for `/_ping`.
fn answers(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: sampan\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    asked.is_ok_and(|text| text.contains("200 OK"))
}

fn socket_of(options: &Options) -> PathBuf {
    options.hosts.iter().find_map(|host| host.strip_prefix("unix://")).map_or_else(|| options.exec_root.join("sampan.sock"), PathBuf::from)
}

#[allow(clippy::print_stdout, reason = "the answer to the user")]
fn status(words: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(words, false)?;
    let socket = socket_of(&options);
    if !answers(&socket) {
        bail!(
            "no engine answers at {}\nHint: it starts by itself at the first command of root, or in the foreground with: sampan daemon",
            socket.display()
        );
    }
    let pid = std::fs::read_to_string(&options.pidfile).unwrap_or_default();
    println!("running: pid {}, socket {}, data root {}", pid.trim(), socket.display(), options.data_root.display());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the answer to the user")]
fn stop(words: &[String]) -> anyhow::Result<()> {
    let all = words.iter().any(|word| word == "--all");
    let words: Vec<String> = words.iter().filter(|word| *word != "--all").cloned().collect();
    let options = Options::parse(&words, false)?;
    let pid = std::fs::read_to_string(&options.pidfile)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { bail!("no engine runs ({} does not exist)", options.pidfile.display()) };
    // The pidfd first, so that a number that was used again is noticed by the file's disappearance alone.
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("the engine is gone already")?;
    let signal = if all { rustix::process::Signal::USR2 } else { rustix::process::Signal::TERM };
    rustix::process::pidfd_send_signal(&pidfd, signal).context("tell the engine to stop")?;
    let mut ready = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    if rustix::event::poll(&mut ready, Some(&minute))? == 0 {
        bail!("the engine did not stop within a minute");
    }
    println!(
        "{}",
        if all { "stopped, with all containers" } else { "stopped; containers live on (stop them too with: sampan daemon stop --all)" }
    );
    Ok(())
}
