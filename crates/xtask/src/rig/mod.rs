//! Servers side by side in one world: registries, engines of ours, Dockers of their own, each with data of its own in memory.
//!
//! For benchmarks and for runs against other people's programs. All of them share the world's loopback and nothing of the
//! machine's; a server ends when its value is dropped, and everything else with the world. What is kept is on one tmpfs, the
//! same for every server, as a disk would measure itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sampan_testkit::{Output, World, WorldOptions, setup};

const DEBIAN: &str = include_str!("debian.sh");

/// Where the world's memory is mounted.
const DATA: &str = "/var/lib/sampan";

/// A user of every registry of ours that wants users, with the password.
pub(crate) const USER: (&str, &str) = ("captain", "a long way to the sea");

/// A world without an engine of its own.
#[derive(Debug)]
pub(crate) struct Rig {
    world: World,
    count: std::cell::Cell<u16>,
}

/// Which registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registry {
    /// Ours; whoever is not known may push.
    Ours,
    /// Ours; only [`USER`] may do anything.
    OursWithUsers,
    /// Ours as the conformance suites want it: manifests may lack blobs. With [`USER`] alone, or for all, who may delete too; with
    /// TLS by a certificate of its own (`ca.crt` below its folder's `tls`), or plain.
    OursForSuites {
        /// Only [`USER`].
        users: bool,
        /// With TLS.
        tls: bool,
    },
    /// distribution 3.1, by the peers' name.
    Distribution,
    /// Debian's docker-registry.
    Debian,
    /// A shell command that serves plain HTTP in the foreground; `@LISTEN@` is the address, `@DATA@` a folder of its own.
    Command(String),
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT` of a registry, `unix://PATH` of an engine, as the world sees it.
    pub(crate) address: String,
    log: PathBuf,
    /// Where a Docker keeps its containers and images, or a registry its blobs, as the world sees it.
    data: String,
}

impl Rig {
    /// A world with so many MiB of memory for data.
    pub(crate) fn new(memory: u32) -> Self {
        let world = World::start(WorldOptions { no_daemon: true, data_size: Some(memory), ..WorldOptions::default() });
        for name in ["docker", "crane", "regctl", "oras"] {
            if let Some(program) = peer(name) {
                world.link(&program, name);
            }
        }
        let plugins = world.folder().join(".docker/cli-plugins");
        if let Some(program) = peer("docker-buildx")
            && std::fs::create_dir_all(&plugins).is_ok()
        {
            drop(std::os::unix::fs::symlink(program, plugins.join("docker-buildx")));
        }
        let rig = Self { world, count: std::cell::Cell::new(0) };
        rig.link_debians();
        rig
    }

    /// Programs that start themselves again by their own path need their own root file system.
    fn link_debians(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let script = self.work().join("debian.sh");
        if std::fs::write(&script, DEBIAN).is_err() {
            return;
        }
        for name in ["skopeo", "podman", "buildah"] {
            if peer(name).is_none() {
                continue;
            }
            let file = self.world.folder().join("bin").join(name);
            let text = format!(
                "#!/bin/sh\nscratch=$(mktemp -d {DATA}/{name}-XXXXXX)\n{} \"$scratch\" {} -- {name} \"$@\"\ncode=$?\nrm -rf \"$scratch\"\nexit $code\n",
                self.debian(),
                self.folders(&[])
            );
            drop(std::fs::write(&file, text));
            drop(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)));
        }
    }

    /// The beginning of a command line that runs in the peers' Debian.
    fn debian(&self) -> String {
        format!("unshare --mount bash '{}' '{}'", self.work().join("debian.sh").display(), peers_home().join("sid").display())
    }

    /// What of the world is seen there.
    fn folders(&self, more: &[&Path]) -> String {
        let more: String = more.iter().map(|folder| format!(" '{}'", folder.display())).collect();
        format!("{DATA} '{}'{more}", setup::target().display())
    }

    /// The folder in which command lines run; the same path in the world and outside.
    pub(crate) fn work(&self) -> PathBuf {
        self.world.folder().join("work")
    }

    /// Runs a command line.
    pub(crate) fn sh(&self, line: &str) -> Output {
        self.world.sh(line)
    }

    /// Runs a command line that must succeed; gives its standard output, trimmed.
    pub(crate) fn ok(&self, line: &str) -> anyhow::Result<String> {
        let output = self.sh(line);
        ensure!(output.code == 0, "$ {line}\n{}{}(exit code {})", output.stdout, output.stderr, output.code);
        Ok(output.stdout.trim().to_owned())
    }

    /// A command inside the world.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.world.command(program)
    }

    fn number(&self) -> u16 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// Starts a registry with nothing in it, on plain HTTP unless it is one of ours that is to have TLS.
    pub(crate) fn registry(&self, kind: &Registry) -> anyhow::Result<Server> {
        let number = self.number();
        let address = format!("127.0.0.1:{}", 5000 + number);
        let data = format!("{DATA}/registry-{number}");
        let line = match kind {
            Registry::Ours => format!("{} --http --anonymous push", serve(&data, &address)),
            Registry::OursWithUsers => format!("{} --http --anonymous none", with_user(&data, &address)),
            Registry::OursForSuites { users, tls } => {
                let serve = if *users { with_user(&data, &address) } else { serve(&data, &address) };
                let transport = if *tls { "--tls-generate" } else { "--http" };
                let anonymous = if *users { "none" } else { "delete" };
                format!("{serve} {transport} --anonymous {anonymous} --allow-missing-blobs")
            }
            Registry::Distribution => self.distribution("registry3", number, &data, &address)?,
            Registry::Debian => self.distribution("registry2", number, &data, &address)?,
            Registry::Command(line) => line.replace("@LISTEN@", &address).replace("@DATA@", &data),
        };
        let server = self.spawn(&format!("mkdir -p '{data}' && {line}"), number, address.clone(), data)?;
        let (host, port) = address.split_once(':').context("an address")?;
        self.wait_for(server, &format!("exec 3<>/dev/tcp/{host}/{port}"))
    }

    /// The command line of a distribution registry.
    fn distribution(&self, name: &str, number: u16, data: &str, address: &str) -> anyhow::Result<String> {
        let program = peer(name).with_context(|| format!("{name} is missing: `peers install {name}`"))?;
        let file = self.work().join(format!("registry-{number}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \"{data}\"}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        std::fs::write(&file, text)?;
        Ok(format!("export OTEL_TRACES_EXPORTER=none; exec '{}' serve '{}'", program.display(), file.display()))
    }

    /// Starts a Docker that has nothing yet; `shared` folders are there at the same paths.
    pub(crate) fn docker(&self, shared: &[&Path]) -> anyhow::Result<Server> {
        let number = self.number();
        let sid = peers_home().join("sid");
        ensure!(sid.join("usr/sbin/dockerd").is_file(), "dockerd is missing: `peers install docker`");
        let data = format!("{DATA}/docker-{number}");
        let address = format!("unix://{}", self.work().join(format!("docker-{number}.sock")).display());
        let line = format!(
            "mkdir -p '{data}' && exec {} '{data}' {} -- dockerd --data-root '{data}/state' --exec-root /run/docker \
             --pidfile /run/docker.pid -H '{address}' --group root --cgroup-parent '/{}/docker-{number}' \
             --insecure-registry 127.0.0.0/8 --log-level error",
            self.debian(),
            self.folders(shared),
            self.world.name()
        );
        let server = self.spawn(&line, number, address.clone(), data)?;
        self.wait_for(server, &format!("docker -H {address} version"))
    }

    /// Starts an engine of ours that has nothing yet.
    pub(crate) fn engine(&self) -> anyhow::Result<Server> {
        let number = self.number();
        let (data, run) = (format!("{DATA}/engine-{number}"), format!("/run/sampan/{number}"));
        let address = format!("unix://{run}/sampan.sock");
        let line = format!(
            "mkdir -p '{data}' '{run}' && exec sampan daemon --data-root '{data}' --exec-root '{run}' -H {address} \
             --cgroup-parent '/{}/engine-{number}' --log-level error",
            self.world.name()
        );
        let server = self.spawn(&line, number, address.clone(), data)?;
        self.wait_for(server, &format!("sampan -H {address} version"))
    }

    fn spawn(&self, line: &str, number: u16, address: String, data: String) -> anyhow::Result<Server> {
        let log = self.work().join(format!("server-{number}.log"));
        let file = std::fs::File::create(&log)?;
        let mut command = self.world.command("bash");
        command.args(["-c", line]).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Server { child: command.spawn().context("nsenter does not start")?, address, log, data })
    }

    /// Waits until a command succeeds, for as long as the server lives.
    fn wait_for(&self, mut server: Server, line: &str) -> anyhow::Result<Server> {
        let end = Instant::now() + Duration::from_secs(60);
        while self.sh(&format!("({line}) >/dev/null 2>&1")).code != 0 {
            let ended = server.child.try_wait()?.is_some();
            ensure!(!ended && Instant::now() < end, "a server does not come up: {}", server.log().trim());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Ends a server and removes what it kept.
    pub(crate) fn discard(&self, server: Server) {
        let data = server.data.clone();
        drop(server);
        let _left_to_the_world = self.sh(&format!("rm -rf '{data}'"));
    }
}

impl Server {
    /// The processes of the server as they are now: it and what it started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            }
        }
        found
    }

    /// Where it keeps its data, as the world sees it.
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// What it printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The first is nsenter, which waits for its child; the server takes those with it that it started.
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
            let servers: Vec<u32> = self.processes().into_iter().skip(1).collect();
            let wanted = if signal == rustix::process::Signal::TERM { &servers[..servers.len().min(1)] } else { &servers[..] };
            for pid in wanted {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _gone_is_fine = rustix::process::kill_process(pid, signal);
                }
            }
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The beginning of the command line of a registry of ours.
fn serve(data: &str, address: &str) -> String {
    format!("exec sampan registry serve --data-root '{data}' --listen {address}")
}

/// The same that first makes [`USER`].
fn with_user(data: &str, address: &str) -> String {
    let add = format!("sampan registry user add {} --role admin --data-root '{data}' --password-stdin", USER.0);
    format!("printf %s '{}' | {add} && {}", USER.1, serve(data, address))
}

/// A program that the peers installed.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = peers_home().join("bin").join(name);
    path.is_file().then_some(path)
}

fn peers_home() -> PathBuf {
    std::env::var_os("PEERS_HOME").map_or_else(|| PathBuf::from("/var/cache/sampan-peers"), PathBuf::from)
}

/// What the peers have installed: program and version.
pub(crate) fn peer_versions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(peers_home().join("versions.txt")).unwrap_or_default();
    let wanted = ["docker", "dockerd", "buildx", "podman", "skopeo", "crane", "regctl", "oras", "registry3", "registry2"];
    let version = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        // The last word is how long the installation took.
        Some(words[..words.len().saturating_sub(1)].join(" "))
    };
    wanted.into_iter().map(|name| (name.to_owned(), version(name).unwrap_or_default())).collect()
}

/// The program under test as it prints its version, for reports.
pub(crate) fn our_version() -> String {
    let output = Command::new(setup::sampan()).arg("--version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
