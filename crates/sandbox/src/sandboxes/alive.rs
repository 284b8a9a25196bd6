//! What is done to a container that runs: further processes, clients, signals, pause, limits, counters.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use sampan_base::ErrorKind;
use sampan_runtime::cgroups::{self, Limits};
use sampan_runtime::options::{Namespace, Options};
use sampan_runtime::plan;
use sampan_runtime::shims::{Attachment, ShimError};
use sampan_shim::apply::cgroup::is_optional_file;
use sampan_sys::{dir, ns};

use super::{Sandboxes, beginning, complete_environment, resolve_user};
use crate::counters::Counters;
use crate::error::StartError;

impl Sandboxes {
    /// The root of a running container.
    ///
    /// # Errors
    /// When it has ended.
    pub fn root(&self, id: &str) -> io::Result<OwnedFd> {
        self.lend(id, |pid| dir::open(Path::new(&format!("/proc/{pid}/root"))))
    }

    /// Opens something of process 1 of a running container. A number is used again: only what is in the container's cgroup now was
    /// the container's when it was opened.
    pub(super) fn lend(&self, id: &str, open: impl FnOnce(u32) -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        let pid = self.running().get(id).map_or(0, |alive| alive.pid);
        let opened = open(pid)?;
        if self.processes(id).contains(&pid) { Ok(opened) } else { Err(io::Error::new(io::ErrorKind::NotFound, "the container has ended")) }
    }

    /// What other containers lend: namespaces in the plan's order, `/dev/shm` with the IPC namespace last.
    pub(super) fn open_joins(&self, options: &Options, [pid, ipc, uts]: &[String; 3], netns: Option<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        let mut joins = Vec::new();
        for (source, donor, name) in [(options.pid, pid, "pid"), (options.ipc, ipc, "ipc"), (options.uts, uts, "uts")] {
            if source == Namespace::Join {
                joins.push(self.lend(donor, |pid| ns::of_process(pid, name))?);
            }
        }
        joins.extend(netns);
        if options.ipc == Namespace::Join {
            joins.push(self.lend(ipc, |pid| ns::tree_of_process(pid, c"/dev/shm"))?);
        }
        Ok(joins)
    }

    /// Starts a further process. `options` are the container's, with what the exec changes.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn exec(
        &self,
        id: &str,
        exec: &str,
        change: impl FnOnce(&mut Options),
        user: Option<&str>,
        attachments: Vec<Attachment>,
    ) -> Result<u32, StartError> {
        let mut options = self
            .running()
            .get(id)
            .map(|alive| alive.options.clone())
            .ok_or_else(|| StartError::other(format!("container {id} is not running"), ErrorKind::Conflict))?;
        change(&mut options);
        if let Some(user) = user {
            let root = self.root(id).map_err(|error| StartError::other(error.to_string(), ErrorKind::Conflict))?;
            options.user = resolve_user(&root, user, &[])?;
            options.environment.retain(|line| !line.starts_with("HOME="));
        }
        complete_environment(&mut options);
        let process = plan::process(&options, &self.host).map_err(|error| StartError::plan(&error))?;
        let program = options.arguments.first().cloned().unwrap_or_default();
        self.shims.exec(id, exec, &process, attachments).map_err(|error| StartError::exec(error, &program))
    }

    /// Whether a running container knows a user.
    ///
    /// # Errors
    /// [`StartError`] with Docker's text when it does not.
    pub fn check_user(&self, id: &str, user: &str) -> Result<(), StartError> {
        let root = self.root(id).map_err(|error| StartError::other(error.to_string(), ErrorKind::Conflict))?;
        resolve_user(&root, user, &[]).map(drop)
    }

    /// Gives a client to a process (empty: process 1).
    ///
    /// # Errors
    /// [`StartError`] when it has ended.
    pub fn attach(&self, id: &str, exec: &str, attachment: Attachment) -> Result<(), StartError> {
        self.shims.attach(id, exec, attachment).map_err(gone)
    }

    /// Sends a signal to process 1. A program that has only just been started and would not notice it may get it up to `patience`
    /// later ([`beginning`]).
    ///
    /// # Errors
    /// [`StartError`] when it has ended.
    pub fn signal(&self, id: &str, number: i32, patience: Duration) -> Result<(), StartError> {
        let young = self.running().get(id).and_then(|alive| Some((alive.pid, alive.since?)));
        if let Some((pid, since)) = young {
            beginning::await_handler(pid, since, number, patience);
        }
        self.shims.signal(id, "", number).map_err(gone)
    }

    /// Sends a signal to a further process.
    ///
    /// # Errors
    /// [`StartError`] when it has ended.
    pub fn signal_exec(&self, id: &str, exec: &str, number: i32) -> Result<(), StartError> {
        self.shims.signal(id, exec, number).map_err(gone)
    }

    /// Sets a terminal's size (`None`: process 1's).
    ///
    /// # Errors
    /// [`StartError`] when there is none.
    pub fn resize(&self, id: &str, exec: Option<&str>, width: u16, height: u16) -> Result<(), StartError> {
        self.shims.resize(id, exec.unwrap_or_default(), width, height).map_err(gone)
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pause(&self, id: &str) -> Result<(), StartError> {
        self.freeze(id, true)?;
        let frozen = self.await_frozen(id);
        if frozen.is_err() {
            drop(self.freeze(id, false));
        }
        frozen
    }

    /// Thaws them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resume(&self, id: &str) -> Result<(), StartError> {
        self.freeze(id, false)
    }

    pub(super) fn freeze(&self, id: &str, frozen: bool) -> Result<(), StartError> {
        let (controller, file, value) = match (self.host.unified, frozen) {
            (true, true) => ("", "cgroup.freeze", "1"),
            (true, false) => ("", "cgroup.freeze", "0"),
            (false, true) => ("freezer", "freezer.state", "FROZEN"),
            (false, false) => ("freezer", "freezer.state", "THAWED"),
        };
        let path = self.host.cgroup_directory(controller, &self.cgroup(id)).join(file);
        std::fs::write(&path, value)
            .map_err(|error| StartError::other(format!("cannot write {}: {error}", path.display()), ErrorKind::Internal))
    }

    /// Waits until the kernel has frozen the last process. v1 gives up where a process forks or sleeps at the wrong moment, until
    /// it is told again.
    fn await_frozen(&self, id: &str) -> Result<(), StartError> {
        let (controller, file) = if self.host.unified { ("", "cgroup.events") } else { ("freezer", "freezer.state") };
        let path = self.host.cgroup_directory(controller, &self.cgroup(id)).join(file);
        let pause = sampan_base::Cancel::new();
        for _ in 0..5000 {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| StartError::other(format!("cannot read {}: {error}", path.display()), ErrorKind::Internal))?;
            if text.lines().any(|line| matches!(line, "frozen 1" | "FROZEN")) {
                return Ok(());
            }
            let _timed_out = pause.wait_timeout(Duration::from_millis(1));
            if !self.host.unified {
                self.freeze(id, true)?;
            }
        }
        Err(StartError::other("unable to freeze", ErrorKind::Internal))
    }

    /// Changes limits.
    ///
    /// # Errors
    /// With the file that refused.
    pub fn update(&self, id: &str, limits: &Limits) -> Result<(), StartError> {
        let writes = cgroups::update_writes(&self.host, &self.cgroup(id), limits);
        let write = |(directory, files): &(String, Vec<(String, String)>)| {
            files.iter().try_for_each(|(file, value)| match std::fs::write(Path::new(directory).join(file), value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional_file(file) => Ok(()),
                written => written.map_err(|error| (format!("{directory}/{file}"), error)),
            })
        };
        // On v1 memory and memory+swap depend on each other: a limit that fails in one order succeeds in the other.
        let failed: Vec<_> = writes.iter().filter(|one| write(one).is_err()).collect();
        let again = |one: &(String, Vec<(String, String)>)| write(one);
        for one in failed {
            again(one).map_err(|(file, error)| StartError::other(format!("failed to write to {file}: {error}"), ErrorKind::Internal))?;
        }
        for one in &writes {
            write(one).map_err(|(file, error)| StartError::other(format!("failed to write to {file}: {error}"), ErrorKind::Internal))?;
        }
        Ok(())
    }

    /// What a container has used.
    #[must_use]
    pub fn counters(&self, id: &str) -> Counters {
        let pid = self.running().get(id).map_or(0, |alive| alive.pid);
        Counters::read(&self.host, &self.cgroup(id), pid)
    }

    /// Process ids of a container, as the host sees them; those in cgroups that it made itself too.
    #[must_use]
    pub fn processes(&self, id: &str) -> Vec<u32> {
        let controller = if self.host.unified { "" } else { "pids" };
        cgroups::processes(&self.host.cgroup_directory(controller, &self.cgroup(id)))
    }
}

fn gone(error: ShimError) -> StartError {
    match error {
        ShimError::Failed { errno: 3, .. } | ShimError::Gone(_) => StartError::other("container is not running", ErrorKind::Conflict),
        other => StartError::other(other.to_string(), ErrorKind::Internal),
    }
}
