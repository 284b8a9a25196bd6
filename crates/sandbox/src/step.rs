//! A step of a build: a process that runs to its end in a root of its own, whose output and exit code go to whoever started it.
//!
//! Steps leave no rows and no records. One that a killed daemon left behind is found by its folder below the exec root and is
//! swept like any other container that nobody knows.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use sampan_base::{Cancel, ErrorKind, Failure};
use sampan_runtime::apparmor::DEFAULT_PROFILE;
use sampan_runtime::caps;
use sampan_runtime::cgroups::Limits;
use sampan_runtime::options::{MountSource, MountStep, Options};
use sampan_runtime::shims::ShimEvent;
use sampan_shim::protocol::Streams;
use sampan_sys::sock;

use crate::{Network, Sandboxes, StartError, StartRequest};

/// How often a step looks whether it is still wanted, in milliseconds.
const LOOK: i64 = 100;
/// How long an ended process may keep its output open, and its end may take to be told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest frame that a shim sends.
const LONGEST: usize = 16 << 20;
/// `MOUNT_ATTR_RDONLY`.
const RDONLY: u64 = 1;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place of the host that a step sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBind {
    /// On the host.
    pub source: PathBuf,
    /// In the step.
    pub target: String,
    /// Whether it cannot be written.
    pub readonly: bool,
}

/// A step to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRequest {
    /// Its id; 64 hex digits.
    pub id: String,
    /// Layers, top first.
    pub lowers: Vec<PathBuf>,
    /// Folder with `upper` and `work`.
    pub folder: PathBuf,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// Working directory; made if it is missing.
    pub cwd: String,
    /// `user[:group]`.
    pub user: String,
    /// Its network; `None` is the default bridge.
    pub network: Option<Network>,
    /// Host name.
    pub hostname: String,
    /// Further lines of /etc/hosts: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// What it may use.
    pub limits: Limits,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: i64,
    /// `RLIMIT_*` number, soft, hard.
    pub ulimits: Vec<(u32, u64, u64)>,
    /// All capabilities and devices, no filters.
    pub insecure: bool,
    /// What else it sees.
    pub binds: Vec<StepBind>,
    /// Memory file systems: target, limit in bytes (0: none).
    pub tmpfs: Vec<(String, u64)>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepEnd {
    /// Its exit code.
    pub code: i32,
    /// Whether it was killed for memory.
    pub oom: bool,
}

/// A step that did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nobody wants it any more.
    #[error("operation cancelled")]
    Cancelled,
    /// Its output or its end got lost.
    #[error("run a build step")]
    Io(#[source] io::Error),
}

impl Failure for StepError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Start(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Io(_) => ErrorKind::Internal,
        }
    }
}

impl Sandboxes {
    /// Runs a step to its end. `output` gets what it prints, in order. Nothing of it is left but its folder.
    ///
    /// # Errors
    /// [`StepError`]; a cancelled step was killed.
    pub fn run_step(&self, request: StepRequest, output: &mut dyn FnMut(Output, &[u8]), cancel: &Cancel) -> Result<StepEnd, StepError> {
        let id = request.id.clone();
        let (ours, theirs) = sock::stream_pair().map_err(StepError::Io)?;
        let events = self.shims().listen(&id);
        let ended =
            self.start(self.step(request, theirs)).map_err(StepError::from).and_then(|_| self.follow(&id, ours, &events, output, cancel));
        self.cleanup(&id);
        self.shims().unlisten(&id);
        ended
    }

    fn follow(
        &self,
        id: &str,
        socket: OwnedFd,
        events: &Receiver<ShimEvent>,
        output: &mut dyn FnMut(Output, &[u8]),
        cancel: &Cancel,
    ) -> Result<StepEnd, StepError> {
        let mut frames = Frames { file: socket.into(), pending: Vec::new() };
        loop {
            if cancel.is_cancelled() {
                self.kill_all(id);
                // Its shim writes the end down beside its socket: what it writes must not outlive the folder's removal.
                drop(events.recv_timeout(PATIENCE));
                return Err(StepError::Cancelled);
            }
            let ready = {
                let mut polled = [PollFd::new(&frames.file, PollFlags::IN)];
                rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: LOOK * 1_000_000 }))
            };
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(StepError::Io(error.into())),
            }
            if !frames.take(output).map_err(StepError::Io)? {
                break;
            }
        }
        match events.recv_timeout(PATIENCE) {
            Ok(ShimEvent::Exited { code, oom, .. }) => Ok(StepEnd { code, oom }),
            Ok(ShimEvent::Lost { .. }) => Ok(StepEnd { code: 137, oom: false }),
            Err(_) => Err(StepError::Io(io::Error::new(io::ErrorKind::TimedOut, "the end of the process was not told"))),
        }
    }

    fn step(&self, request: StepRequest, output: OwnedFd) -> StartRequest {
        let host = self.host();
        let capabilities = caps::choose(&[], &[], request.insecure, host.capabilities).unwrap_or_default();
        let bind = |bind: &StepBind| MountStep {
            source: MountSource::Bind { path: bind.source.display().to_string(), recursive: false },
            target: bind.target.clone(),
            attributes: if bind.readonly { RDONLY } else { 0 },
            propagation: 1,
            ..MountStep::default()
        };
        let tmpfs = |(target, size): &(String, u64)| {
            let mut options = vec![("source".to_owned(), "tmpfs".to_owned())];
            if *size > 0 {
                options.push(("size".to_owned(), size.to_string()));
            }
            MountStep { source: MountSource::New { kind: "tmpfs".into(), options }, target: target.clone(), ..MountStep::default() }
        };
        let options = Options {
            arguments: request.arguments,
            environment: request.environment,
            cwd: request.cwd,
            hostname: request.hostname,
            privileged: request.insecure,
            capabilities,
            apparmor: if host.apparmor && !request.insecure { DEFAULT_PROFILE.to_owned() } else { String::new() },
            cgroup_private: host.unified && !request.insecure,
            shm_size: if request.shm_size > 0 { request.shm_size } else { 64 << 20 },
            limits: request.limits,
            ulimits: request.ulimits,
            mounts: request.binds.iter().map(bind).chain(request.tmpfs.iter().map(tmpfs)).collect(),
            ..Options::default()
        };
        let network = request.network.unwrap_or(Network::Bridge { ip: None, mac: None, ports: Vec::new() });
        StartRequest {
            name: request.id.get(..12).unwrap_or(&request.id).to_owned(),
            id: request.id,
            lowers: request.lowers,
            folder: request.folder,
            options,
            network,
            joins: Default::default(),
            extra_hosts: request.extra_hosts,
            dns: Default::default(),
            own_files: vec!["/etc/hostname".to_owned()],
            files_of: None,
            attachments: vec![(output, Streams { stdin: false, stdout: true, stderr: true })],
            user: request.user,
            groups: Vec::new(),
            init: false,
            passing: true,
        }
    }
}

/// Docker's frames, read from a stream.
struct Frames {
    file: std::fs::File,
    pending: Vec<u8>,
}

impl Frames {
    /// Reads once and hands over what is whole; `false` at the end.
    fn take(&mut self, output: &mut dyn FnMut(Output, &[u8])) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let count = match self.file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        self.pending.extend_from_slice(&buffer[..count]);
        let mut done = 0;
        while let Some(head) = self.pending.get(done..done + 8) {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            if length > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
            }
            let Some(body) = self.pending.get(done + 8..done + 8 + length) else { break };
            output(if head[0] == 2 { Output::Stderr } else { Output::Stdout }, body);
            done += 8 + length;
        }
        self.pending.drain(..done);
        Ok(count > 0)
    }
}
