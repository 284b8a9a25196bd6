//! A world of its own for a daemon: mount, network, pid, ipc and uts namespaces, with private state directories.
//!
//! Its process 1 is a shell that reaps orphans; ending it ends everything inside. `/run/sampan`, `/var/lib/sampan` and
//! `/etc/sampan` are bound from a folder under target/, so a test never meets the machine's own daemon. What a kernel keeps
//! outside namespaces, the cgroups, is removed when the world is dropped.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::service::Service;
use crate::{index, setup};

/// How a world is made.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// Further arguments of `sampan daemon`.
    pub daemon_arguments: Vec<String>,
    /// Do not start a daemon: the first command is to do it.
    pub no_daemon: bool,
    /// Put the data root on a file system of its own of so many MiB.
    pub data_size: Option<u32>,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
}

/// Namespaces with a daemon in them. Dropping it ends all.
#[derive(Debug)]
pub struct World {
    holder: Child,
    daemon: Option<Child>,
    init: u32,
    name: String,
    folder: PathBuf,
    options: WorldOptions,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl World {
    /// Makes the namespaces and starts the daemon in them.
    ///
    /// # Panics
    /// When the machine lacks what it takes (root, unshare); the message says what.
    #[must_use]
    pub fn start(options: WorldOptions) -> Self {
        let name = format!("sampan-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = setup::target().join("worlds").join(&name);
        for part in ["run", "lib", "etc", "bin", "work"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder under target/");
        }
        std::os::unix::fs::symlink(setup::sampan(), folder.join("bin/sampan")).expect("a link in an empty folder");
        let holder = hold(&folder, options.data_size);
        let init = only_child(holder.id());
        let mut world = Self { holder, daemon: None, init, name, folder, options };
        if !world.options.no_daemon {
            world.start_daemon();
        }
        world
    }

    /// The private folder: `run`, `lib`, `etc`, `bin`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id, as the host sees it, of the world's process 1.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init
    }

    /// The daemon's process, if one was started here.
    pub fn daemon(&mut self) -> Option<&mut Child> {
        self.daemon.as_mut()
    }

    /// A world with the unmodified docker CLI, the image `box:latest` loaded, and `box.tar` and `rootfs.tar` in its folder.
    ///
    /// # Panics
    /// When there is no docker CLI; the message says how to get one.
    #[must_use]
    pub fn with_docker() -> Self {
        Self::with_docker_and(WorldOptions::default())
    }

    /// The same, made otherwise.
    ///
    /// # Panics
    /// As [`Self::with_docker`].
    #[must_use]
    pub fn with_docker_and(options: WorldOptions) -> Self {
        let world = Self::start(options);
        let docker =
            setup::docker_cli().expect("the docker CLI is missing: set SAMPAN_DOCKER_CLI (./test installs it where the peers are)");
        world.link(&docker, "docker");
        world.write_archives();
        world
    }

    /// The same with our own command line under the name `docker`.
    ///
    /// # Panics
    /// When the machine lacks what it takes.
    #[must_use]
    pub fn with_our_docker() -> Self {
        let world = Self::start(WorldOptions::default());
        std::os::unix::fs::symlink(setup::sampan(), world.folder.join("bin/docker")).expect("a link in the world's folder");
        world.write_archives();
        world
    }

    /// Configures the engine that a first command starts: its cgroups are the world's own.
    ///
    /// # Panics
    /// When the world's folder cannot be written.
    pub fn write_configuration(&self) {
        let text = format!("{{\"cgroup-parent\":\"{}\"}}", self.name);
        std::fs::write(self.folder.join("etc/daemon.json"), text).expect("a file in the world's folder");
    }

    /// Writes `box.tar` (a docker-archive) and `rootfs.tar` into the folder that commands run in.
    ///
    /// # Panics
    /// When busybox cannot be read or the folder not be written.
    pub fn write_archives(&self) {
        let busybox = setup::busybox();
        let write = |name: &str, bytes: std::io::Result<Vec<u8>>| {
            crate::images::write(&self.folder.join("work").join(name), &bytes.expect("busybox can be read")).expect("a file")
        };
        write("box.tar", crate::images::docker_archive(&busybox, "box:latest"));
        write("rootfs.tar", crate::images::rootfs(&busybox));
    }

    /// Puts a program first in the PATH of the world's commands, under another name.
    ///
    /// # Panics
    /// When the link cannot be made.
    pub fn link(&self, program: &Path, name: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let script = self.folder.join("bin").join(name);
        // A script, as some programs look for their files beside the name they were called by.
        std::fs::write(&script, format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display())).expect("a script in the world's folder");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up within two minutes (a virtual machine without hardware help is slow).
    pub fn start_daemon(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join("daemon.log")).expect("a log file");
        let mut command = self.command("sampan");
        command.args(["daemon", "--cgroup-parent", &self.name]).args(&self.options.daemon_arguments);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log).stdin(Stdio::null());
        self.daemon = Some(command.spawn().expect("nsenter starts"));
        let end = Instant::now() + Duration::from_secs(120);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let died = self.daemon.as_mut().and_then(|child| child.try_wait().ok()).flatten();
            assert!(died.is_none() && Instant::now() < end, "the daemon does not answer:\n{}", self.daemon_log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon's socket as the host sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/sampan.sock")
    }

    /// What the daemon logged so far.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default()
    }

    /// The host's process id of the daemon.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn daemon_pid(&self) -> u32 {
        let child = self.daemon.as_ref().expect("a daemon was started");
        only_child(child.id())
    }

    /// Kills the daemon with SIGKILL and waits for its end.
    pub fn kill_daemon(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(only_child(child.id())).expect("a pid")).expect("not 0");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own process");
            child.wait().expect("our own child");
        }
    }

    /// Takes note that something else ended the daemon: waits for its end.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn daemon_ended(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.wait().expect("our own child");
        }
    }

    /// The world's name: of its cgroups below every hierarchy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The world's shims: the host's process id, and the twelve digits of their containers.
    #[must_use]
    pub fn shims(&self) -> Vec<(u32, String)> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init);
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let id = line.trim_end_matches('\0').strip_prefix("sampan-shim ")?.to_owned();
            // A shim that was killed and not yet reaped has no command line any more.
            (namespace(pid) == own).then_some((pid, id))
        })
        .collect()
    }

    /// A command in the world's namespaces; `sampan` and linked programs are on its PATH.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-n", "-p", "-i", "-u", "--", program]);
        let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.join("bin").display());
        command.env_clear().env("PATH", path).env("HOME", &self.folder).env("DOCKER_HOST", "unix:///run/sampan/sampan.sock");
        command.env("LANG", "C.UTF-8");
        command
    }

    /// The same as another user, who has the group of the same number.
    #[must_use]
    pub fn command_as(&self, user: u32, program: &str) -> Command {
        let mut command = self.command("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--", program]);
        command
    }

    /// Gives a name an address, for every program of the world.
    ///
    /// # Panics
    /// When the world's own `/etc/hosts` cannot be written.
    pub fn name_address(&self, name: &str, address: &str) {
        let mut file = std::fs::File::options().append(true).open(self.folder.join("hosts")).expect("the world's hosts");
        writeln!(file, "{address} {name}").expect("a line of the world's hosts");
    }

    /// Serves target/packages as the package index that the stand-ins of base images know; it ends with the world.
    ///
    /// # Panics
    /// When it does not start; the message says what to run.
    #[must_use]
    pub fn serve_packages(&self) -> Service {
        let packages = setup::packages();
        assert!(packages.is_dir(), "{} is missing; run `cargo xtask packages` (./test does)", packages.display());
        let _added = self.ok(&format!("ip address add {}/32 dev lo", index::ADDRESS));
        let address = format!("{}:80", index::ADDRESS);
        let mut command = self.command(&setup::tool("package-index").display().to_string());
        command.arg(&address).arg(packages);
        Service::start(self, "index", command, &address)
    }

    /// Loads stand-ins of base images into the engine.
    ///
    /// # Panics
    /// When one is missing, with what to run, or when the engine refuses it.
    pub fn load_base_images(&self, references: &[&str]) {
        for reference in references {
            let archive = setup::base_image(reference);
            assert!(archive.is_file(), "{} is missing; run `cargo xtask base-images` (./test does)", archive.display());
            let _loaded = self.ok(&format!("sampan load -q -i '{}'", archive.display()));
        }
    }

    /// Runs a shell command line in the world.
    ///
    /// # Panics
    /// When the shell cannot be started.
    #[must_use]
    pub fn sh(&self, line: &str) -> Output {
        self.sh_with_input(line, b"")
    }

    /// Runs a shell command line with something on its standard input.
    ///
    /// # Panics
    /// When the shell cannot be started.
    #[must_use]
    pub fn sh_with_input(&self, line: &str, input: &[u8]) -> Output {
        let mut command = self.command("bash");
        // Entering a mount namespace resets the working directory.
        command.args(["-c", &format!("cd '{}/work'\n{line}", self.folder.display())]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("our own child");
        drop(writer.join().expect("the writer does not panic"));
        let code = output.status.code().unwrap_or_else(|| {
            use std::os::unix::process::ExitStatusExt as _;
            128 + output.status.signal().unwrap_or(0)
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { stdout: text(&output.stdout), stderr: text(&output.stderr), code }
    }

    /// Runs a command line that must succeed; gives its standard output without the last line end.
    ///
    /// # Panics
    /// When it fails: with its output and the daemon's log.
    #[must_use]
    pub fn ok(&self, line: &str) -> String {
        let output = self.sh(line);
        assert_eq!(output.code, 0, "$ {line}\n{}{}\ndaemon log:\n{}", output.stdout, output.stderr, self.daemon_log());
        output.stdout.strip_suffix('\n').unwrap_or(&output.stdout).to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // On cgroup v1 what is frozen cannot be killed.
        thaw(&Path::new("/sys/fs/cgroup/freezer").join(&self.name));
        let kill = |pid: u32| {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL))
        };
        let _gone_is_fine = kill(self.init);
        drop(self.holder.wait());
        if let Some(daemon) = self.daemon.as_mut() {
            drop(daemon.wait());
        }
        remove_cgroups(&self.name);
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

fn thaw(folder: &Path) {
    drop(std::fs::write(folder.join("freezer.state"), "THAWED"));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        thaw(&entry.path());
    }
}

fn hold(folder: &Path, data_size: Option<u32>) -> Child {
    let data = data_size.map_or_else(String::new, |size| format!("mount -t tmpfs -o size={size}m data {}/lib;", folder.display()));
    let script = format!(
        "set -e; mount --make-rprivate /; cd {0}; mkdir -p /run/sampan /var/lib/sampan /etc/sampan; {data} \
         mount --bind {0}/run /run/sampan; mount --bind {0}/lib /var/lib/sampan; mount --bind {0}/etc /etc/sampan; \
         cp /etc/hosts {0}/hosts; mount --bind {0}/hosts /etc/hosts; \
         ip link set lo up; echo ready; while :; do sleep 100000 & wait; done",
        folder.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--mount-proc", "bash", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("unshare of util-linux starts");
    let mut line = [0; 6];
    let ready = std::io::Read::read_exact(&mut child.stdout.take().expect("piped"), &mut line);
    assert!(ready.is_ok() && &line == b"ready\n", "cannot make namespaces: root and util-linux are needed");
    child
}

/// The one child of a process that forks once (`unshare --fork`, `nsenter -p`).
pub(crate) fn only_child(pid: u32) -> u32 {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next().and_then(|word| word.parse().ok()) {
            return child;
        }
        assert!(Instant::now() < end, "process {pid} has no child");
        std::thread::yield_now();
    }
}

fn remove_cgroups(name: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
    for root in roots {
        // An engine that a command started has a cgroup of its own beside its containers'.
        for parent in [root.join(name), own_cgroup(&root).join(name), root.join(format!("{name}-engine"))] {
            remove_cgroup_tree(&parent);
        }
    }
}

/// Below which cgroup of a v1 hierarchy this process lives.
fn own_cgroup(root: &Path) -> PathBuf {
    let controller = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mine = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|one| one == controller).then(|| fields.next()).flatten()
    });
    root.join(mine.unwrap_or("/").trim_start_matches('/'))
}

fn remove_cgroup_tree(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup_tree(&entry.path());
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while folder.exists() && std::fs::remove_dir(folder).is_err() && Instant::now() < end {
        std::thread::yield_now();
    }
}
