//! The engine that starts at the first command: the command line's half and the engine's half.
//!
//! Only for root and the default socket. Where a systemd unit `sampan.service` is installed, systemd starts it; else the program
//! starts itself in a session and a cgroup of its own, so that what ends the command line's session does not end the engine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use sampan_cli::CliError;

const FOLDER: &str = "/run/sampan";
const LOG: &str = "/run/sampan/daemon.log";
/// A log of earlier starts that is larger than this is begun anew.
const LARGEST_LOG: u64 = 16 << 20;
const READY: &[u8] = b"ready\n";

/// Starts an engine and waits until it answers. When two commands come at the same time, one starts it and the other waits.
pub(crate) fn start_engine() -> Result<(), CliError> {
    let fail = |what: &str, error: &dyn std::fmt::Display| CliError::new(format!("cannot start the engine: {what}: {error}"));
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::new(format!(
            "Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running?",
            sampan_cli::SOCKET
        ))
        .hint("only root can start the engine: try sudo"));
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(FOLDER).map_err(|error| fail(FOLDER, &error))?;
    let lock = File::options().create(true).append(true).mode(0o600).open(Path::new(FOLDER).join("start.lock"));
    let lock = lock.map_err(|error| fail("start.lock", &error))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| fail("start.lock", &error))?;
    if UnixStream::connect(sampan_cli::SOCKET).is_ok() {
        return Ok(());
    }
    if has_unit() {
        return by_systemd();
    }
    await_the_last_one();
    by_ourselves().or_else(|error| {
        // Somebody else may have started one in the meantime, not through us.
        if UnixStream::connect(sampan_cli::SOCKET).is_ok() { Ok(()) } else { Err(error) }
    })
}

/// An engine that is being killed or stopped answers no more but still holds its locks: waits for its end, at most ten seconds.
fn await_the_last_one() {
    let Ok(text) = std::fs::read_to_string(Path::new(FOLDER).join("sampan.pid")) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    // The number may belong to somebody else by now.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
    let ours = std::env::current_exe().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    if ours.is_some_and(|ours| name.trim_end() == ours.chars().take(15).collect::<String>()) {
        let mut ends = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let _tried = rustix::event::poll(&mut ends, Some(&patience));
    }
}

/// Whether systemd runs here and knows our unit.
fn has_unit() -> bool {
    let places = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    Path::new("/run/systemd/system").exists() && places.iter().any(|place| Path::new(place).join("sampan.service").exists())
}

fn by_systemd() -> Result<(), CliError> {
    #[expect(clippy::disallowed_methods, reason = "the named exception for starting the engine by its unit")]
    let started = Command::new("systemctl").args(["start", "sampan.service"]).stdin(Stdio::null()).status();
    match started {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            Err(CliError::new("cannot start the engine: systemctl start sampan.service failed")
                .hint("see what it says: journalctl -u sampan"))
        }
        Err(error) => Err(CliError::new(format!("cannot start the engine: systemctl: {error}"))),
    }
}

fn by_ourselves() -> Result<(), CliError> {
    let fail = |what: &str, error: &dyn std::fmt::Display| CliError::new(format!("cannot start the engine: {what}: {error}"));
    let program = std::env::current_exe().map_err(|error| fail("own path", &error))?;
    let fresh = std::fs::metadata(LOG).is_ok_and(|found| found.len() > LARGEST_LOG);
    let log = File::options().create(true).write(true).append(!fresh).truncate(fresh).mode(0o600).open(LOG);
    let log = log.map_err(|error| fail(LOG, &error))?;
    let before = log.metadata().map_or(0, |found| found.len());
    #[expect(clippy::disallowed_methods, reason = "the program starts itself")]
    let mut command = Command::new(program);
    command.args(["daemon", "--started-by-client"]).current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|error| fail("start", &error))?;
    let mut answer = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        // The engine writes one line and closes; without it the pipe ends when the engine does.
        drop(stdout.take(READY.len() as u64).read_to_end(&mut answer));
    }
    if answer == READY {
        drop(writeln!(std::io::stderr(), "The engine was started (its log: {LOG}). It goes on until: sampan daemon stop"));
        return Ok(());
    }
    drop(child.wait());
    let said = tail(before);
    Err(CliError::new(format!("cannot start the engine: {}", if said.is_empty() { "it ended without a word" } else { &said }))
        .hint(format!("its whole log: {LOG}; in the foreground: sampan daemon")))
}

/// The last line that the engine logged.
fn tail(from: u64) -> String {
    let text = std::fs::read(LOG).unwrap_or_default();
    let text = text.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
    String::from_utf8_lossy(text)
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim_start_matches("sampan: ")
        .to_owned()
}

/// The engine's half: a session of its own, and a cgroup in each hierarchy. They go when this is dropped.
pub(crate) fn come_apart(cgroup_parent: &str) -> Apart {
    // Fails only for the leader of a process group, who has a session of its own already.
    let _leads_already = rustix::process::setsid();
    let mut made = Vec::new();
    for root in hierarchies() {
        // Beside the containers' cgroups, so that what looks after those finds it.
        let own = root.join(format!("{}-engine", cgroup_parent.trim_matches('/')));
        let entered = std::fs::create_dir_all(&own).and_then(|()| std::fs::write(own.join("cgroup.procs"), "0"));
        if entered.is_ok() {
            made.push((root, own));
        }
    }
    Apart(made)
}

/// The roots of the hierarchies: one on version 2, one a controller on version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let Ok(found) = std::fs::read_dir(&root) else { return Vec::new() };
    let folders = found.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    // A new cpuset has no CPUs: nobody can enter it.
    folders.filter(|path| path.join("cgroup.procs").exists() && !path.join("cpuset.cpus").exists()).collect()
}

/// The cgroups that [`come_apart`] made.
#[derive(Debug)]
pub(crate) struct Apart(Vec<(PathBuf, PathBuf)>);

impl Drop for Apart {
    fn drop(&mut self) {
        for (root, own) in &self.0 {
            let left = std::fs::write(root.join("cgroup.procs"), "0");
            drop(left.and_then(|()| std::fs::remove_dir(own)));
        }
    }
}

/// Tells the command line that waits; nobody reads afterwards.
pub(crate) fn tell_ready() {
    drop(std::io::stdout().write_all(READY).and_then(|()| std::io::stdout().flush()));
    // What reads the pipe sees its end: standard output is nobody's from now on.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _pipe_stays = rustix::stdio::dup2_stdout(&null);
    }
}
