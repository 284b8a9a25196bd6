//! Attach, logs, and what else a client watches: inspect, list, top, counters.

use std::os::fd::OwnedFd;

use sampan_runtime::logs::{self, LogQuery, LogStream};
use sampan_sandbox::{Attachment, Counters, Streams};

use crate::Engine;
use crate::error::EngineError;
use crate::model::{ContainerView, Status};
use crate::table::{Container, PendingAttach};
use crate::top::{self, Top};

/// Which streams a client attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A client's connection to a process: a stream socket that carries Docker's frames, or with a terminal plain bytes.
#[derive(Debug)]
pub struct Attached {
    /// Our end is the client's.
    pub socket: OwnedFd,
    /// Plain bytes.
    pub tty: bool,
}

/// A log that is being read.
#[derive(Debug)]
pub struct Logs {
    /// The container has a terminal: no frames.
    pub tty: bool,
    /// The lines.
    pub stream: LogStream,
}

pub(crate) fn socket_pair(streams: Streams) -> Result<(Vec<Attachment>, Option<OwnedFd>), EngineError> {
    let (ours, theirs) = sampan_sys::sock::stream_pair().map_err(EngineError::io("make a socket pair"))?;
    Ok((vec![(theirs, streams)], Some(ours)))
}

/// A connection on which a text has been said already.
pub(crate) fn message(text: &str, tty: bool) -> Result<Attached, EngineError> {
    let (ours, theirs) = sampan_sys::sock::stream_pair().map_err(EngineError::io("make a socket pair"))?;
    let bytes = if tty { text.as_bytes().to_vec() } else { sampan_sandbox::output_frame(text) };
    rustix::io::write(&theirs, &bytes).map_err(|error| EngineError::io("write to a client")(error.into()))?;
    Ok(Attached { socket: ours, tty })
}

impl Engine {
    /// Attaches a client. Before the start it gets everything of the next run. One that wants no stream is at the end at once.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it is paused.
    pub fn attach(&self, name: &str, request: AttachRequest) -> Result<Attached, EngineError> {
        let container = self.table().find(name)?;
        let (ours, theirs) = sampan_sys::sock::stream_pair().map_err(EngineError::io("make a socket pair"))?;
        let mut facts = container.facts();
        let tty = facts.spec.config.tty;
        // Input goes nowhere without an open standard input.
        let stdin = request.stdin && facts.spec.config.open_stdin;
        match facts.state.status {
            Status::Paused => {
                return Err(EngineError::Conflict(format!("container {name} is paused, unpause the container before attach")));
            }
            _ if request == AttachRequest::default() => drop(facts),
            Status::Running => {
                let id = facts.spec.id.clone();
                drop(facts);
                let streams = Streams { stdin, stdout: request.stdout, stderr: request.stderr };
                self.sandboxes().attach(&id, "", (theirs, streams)).map_err(|error| EngineError::room(&error))?;
            }
            _ => {
                facts.pending.push(PendingAttach { socket: theirs, stdin, stdout: request.stdout, stderr: request.stderr });
                drop(facts);
            }
        }
        self.container_event(&container, "attach", &[]);
        Ok(Attached { socket: ours, tty })
    }

    /// Takes note that a client left by its keys.
    pub fn detached(&self, name: &str) {
        if let Ok(container) = self.table().find(name) {
            self.container_event(&container, "detach", &[]);
        }
    }

    /// Opens a container's log.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when its log driver keeps none.
    pub fn logs(&self, name: &str, query: &LogQuery) -> Result<Logs, EngineError> {
        let container = self.table().find(name)?;
        let (id, tty, driver, running) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.spec.config.tty, facts.spec.host.log.driver.clone(), facts.state.status.is_running())
        };
        if driver == "none" {
            return Err(EngineError::Unsupported("configured logging driver does not support reading".into()));
        }
        let query = LogQuery { follow: query.follow && running, ..query.clone() };
        let stream = logs::open(&self.log_path(&id), &query).map_err(EngineError::io("open the log"))?;
        Ok(Logs { tty, stream })
    }

    /// Everything there is to say about a container.
    ///
    /// # Errors
    /// When there is none.
    pub fn inspect(&self, name: &str, size: bool) -> Result<ContainerView, EngineError> {
        Ok(self.view(&*self.table().find(name)?, size))
    }

    /// Every container, newest first.
    #[must_use]
    pub fn list(&self, size: bool) -> Vec<ContainerView> {
        let mut all: Vec<_> = self.table().all().iter().map(|container| self.view(container, size)).collect();
        all.sort_by_key(|view| std::cmp::Reverse(view.spec.created));
        all
    }

    fn view(&self, container: &Container, size: bool) -> ContainerView {
        let (spec, state) = {
            let facts = container.facts();
            (facts.spec.clone(), facts.state.clone())
        };
        let mut words = spec.config.entrypoint.iter().flatten().chain(spec.config.cmd.iter().flatten()).cloned();
        let path = words.next().unwrap_or_default();
        let args = words.collect();
        let folder = self.container_folder(&spec.id);
        let shown = |part: &str| folder.join(part).display().to_string();
        let has_started = state.has_been_started;
        let started = |part: &str| if has_started { shown(part) } else { String::new() };
        let security = crate::options::security(&spec.host.security_opt).unwrap_or_default();
        let profile = self.profile(&spec.host, &security.apparmor).to_owned();
        let size = size.then(|| {
            let upper = crate::disk::tree_size(&folder.join("upper"));
            let image = self.images().resolve(&spec.image_id).map_or(0, |image| image.size);
            (upper, upper + image)
        });
        let mut state = state;
        for (network, endpoint) in &mut state.endpoints {
            endpoint.network_id = self.network_id(network);
        }
        ContainerView {
            exec_ids: self.exec_ids(&spec.id),
            path,
            args,
            log_path: if spec.host.log.driver == "none" { String::new() } else { self.log_path(&spec.id).display().to_string() },
            hostname_path: started("hostname"),
            hosts_path: started("hosts"),
            resolv_conf_path: started("resolv.conf"),
            graph_lower: String::new(),
            graph_upper: shown("upper"),
            graph_work: shown("work"),
            apparmor_profile: if has_started { profile } else { String::new() },
            size,
            spec,
            state,
        }
    }

    /// The processes of a container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub fn top(&self, name: &str, arguments: &str) -> Result<Top, EngineError> {
        let container = self.table().find(name)?;
        let (id, status) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.state.status)
        };
        if !status.is_running() {
            return Err(EngineError::Conflict(format!("container {id} is not running")));
        }
        let columns = top::columns(arguments)?;
        let processes = top::rows(&self.sandboxes().processes(&id), &columns);
        self.container_event(&container, "top", &[]);
        Ok(Top { titles: columns.into_iter().map(|(_, head)| head).collect(), processes })
    }

    /// What a container has used; `None` when it does not run.
    ///
    /// # Errors
    /// When there is none.
    pub fn stats(&self, name: &str) -> Result<Option<Counters>, EngineError> {
        let container = self.table().find(name)?;
        let (id, running) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.state.status.is_running())
        };
        Ok(running.then(|| self.sandboxes().counters(&id)))
    }
}
