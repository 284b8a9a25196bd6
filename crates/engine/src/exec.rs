//! Further processes in running containers.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sampan_runtime::caps;
use sampan_runtime::options::Options;
use sampan_sandbox::{StartError, Streams};

use crate::Engine;
use crate::error::{EngineError, LookupError};
use crate::model::{ExecRequest, ExecView, Status};
use crate::names;
use crate::streams::Attached;
use crate::subscription::{Sender, Subscription, channel, ready};

/// Ended execs are remembered, so that their exit code can be asked; beyond so many the oldest go.
const REMEMBERED: usize = 256;

/// All execs by id.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Exec>,
    ended: Vec<String>,
}

#[derive(Debug)]
struct Exec {
    view: ExecView,
    started: bool,
    waiters: Vec<Sender<i32>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Prepares a further process.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when the container does not run or is paused.
    pub fn exec_create(&self, name: &str, request: ExecRequest) -> Result<String, EngineError> {
        if request.cmd.is_empty() {
            return Err(EngineError::Invalid("No exec command specified".into()));
        }
        let container = self.table().find(name)?;
        let container_id = {
            let facts = container.facts();
            match facts.state.status {
                Status::Running => {}
                Status::Paused => {
                    return Err(EngineError::Conflict(format!("Container {name} is paused, unpause the container before exec")));
                }
                Status::Restarting => {
                    return Err(EngineError::Conflict(format!(
                        "Container {} is restarting, wait until the container is running",
                        facts.spec.id
                    )));
                }
                _ => return Err(EngineError::Conflict(format!("container {} is not running", facts.spec.id))),
            }
            facts.spec.id.clone()
        };
        if !request.user.is_empty() {
            self.sandboxes().check_user(&container_id, &request.user).map_err(|error| EngineError::room(&error))?;
        }
        let id = names::new_id();
        let action = action("exec_create", &request);
        let view = ExecView { id: id.clone(), container_id, request, running: false, exit_code: None, pid: 0, can_remove: false };
        self.execs().lock().by_id.insert(id.clone(), Exec { view, started: false, waiters: Vec::new() });
        self.container_event(&container, &action, &[("execID", &id)]);
        Ok(id)
    }

    /// Starts it; not detached, its streams come back as a socket.
    ///
    /// # Errors
    /// The sandbox's failures with Docker's texts.
    pub fn exec_start(&self, id: &str, detach: bool, console_size: Option<[u16; 2]>) -> Result<Option<Attached>, EngineError> {
        let tty = self.exec_inspect(id)?.request.tty;
        match self.exec_launch(id, !detach, console_size)? {
            Ok(socket) => Ok(socket.map(|socket| Attached { socket, tty })),
            // An attached client reads the reason as output, as in the original.
            Err(error) if !detach => crate::streams::message(&format!("{error}\r\n"), tty).map(Some),
            Err(error) => Err(EngineError::room(&error)),
        }
    }

    /// Starts an exec once. The inner error is the container's: a program that is not there and the like.
    pub(crate) fn exec_launch(
        &self,
        id: &str,
        attached: bool,
        console_size: Option<[u16; 2]>,
    ) -> Result<Result<Option<OwnedFd>, StartError>, EngineError> {
        let view = {
            let mut execs = self.execs().lock();
            let exec = execs.by_id.get_mut(id).ok_or_else(|| LookupError::NoSuchExec(id.to_owned()))?;
            if exec.view.exit_code.is_some() || exec.started {
                return Err(EngineError::Conflict(format!("exec command {id} has already run")));
            }
            exec.started = true;
            exec.view.clone()
        };
        let container = self.table().find(&view.container_id)?;
        let wish = view.request;
        let streams = Streams {
            stdin: attached && wish.attach_stdin,
            stdout: attached && wish.attach_stdout,
            stderr: attached && wish.attach_stderr,
        };
        let stdin = streams.stdin;
        let (attachments, ours) = if attached { crate::streams::socket_pair(streams)? } else { (Vec::new(), None) };
        let every_right = self.sandboxes().host().capabilities & caps::ALL;
        let names_terminal = container.facts().spec.config.env.iter().any(|line| line.starts_with("TERM="));
        let change = |options: &mut Options| {
            change_options(options, &wish, names_terminal, every_right);
            let size = console_size.or(wish.console_size).unwrap_or([0, 0]);
            options.size = (size[1], size[0]);
            options.stdin = stdin;
        };
        let user = Some(wish.user.as_str()).filter(|user| !user.is_empty());
        self.container_event(&container, &action("exec_start", &wish), &[("execID", id)]);
        let started = self.sandboxes().exec(&view.container_id, id, change, user, attachments);
        if let Some(exec) = self.execs().lock().by_id.get_mut(id) {
            match &started {
                Ok(pid) => {
                    exec.view.pid = *pid;
                    // It may have ended already.
                    exec.view.running = exec.view.exit_code.is_none();
                }
                Err(error) => exec.view.exit_code = Some(error.exit_code()),
            }
        }
        Ok(started.map(|_| ours))
    }

    /// Takes note that a client left an exec by its keys.
    pub fn exec_detached(&self, id: &str) {
        let Ok(view) = self.exec_inspect(id) else { return };
        if let Ok(container) = self.table().find(&view.container_id) {
            self.container_event(&container, "exec_detach", &[("execID", id)]);
        }
    }

    /// What is known of an exec.
    ///
    /// # Errors
    /// When there is none.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecView, EngineError> {
        let execs = self.execs().lock();
        execs.by_id.get(id).map(|exec| exec.view.clone()).ok_or_else(|| LookupError::NoSuchExec(id.to_owned()).into())
    }

    /// Gives the exit code once the exec has ended.
    ///
    /// # Errors
    /// When there is none.
    pub fn exec_wait(&self, id: &str) -> Result<Subscription<i32>, EngineError> {
        let mut execs = self.execs().lock();
        let exec = execs.by_id.get_mut(id).ok_or_else(|| LookupError::NoSuchExec(id.to_owned()))?;
        if let Some(code) = exec.view.exit_code {
            return Ok(ready([code]));
        }
        let (sender, subscription) = channel(1);
        exec.waiters.push(sender);
        Ok(subscription)
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// When it has none or has ended.
    pub fn exec_resize(&self, id: &str, width: u16, height: u16) -> Result<(), EngineError> {
        let container = self.exec_inspect(id)?.container_id;
        self.sandboxes().resize(&container, Some(id), width, height).map_err(|error| EngineError::room(&error))
    }

    pub(crate) fn exec_ids(&self, container: &str) -> Vec<String> {
        self.execs()
            .lock()
            .by_id
            .values()
            .filter(|exec| exec.view.container_id == container && exec.view.running)
            .map(|exec| exec.view.id.clone())
            .collect()
    }

    pub(crate) fn exec_ended(&self, container: &str, id: &str, code: i32) {
        {
            let mut execs = self.execs().lock();
            let Some(exec) = execs.by_id.get_mut(id) else { return };
            exec.view.running = false;
            exec.view.exit_code = Some(code);
            exec.view.pid = 0;
            for waiter in exec.waiters.drain(..) {
                waiter.send(code);
            }
            execs.ended.push(id.to_owned());
            if execs.ended.len() > REMEMBERED {
                let oldest = execs.ended.remove(0);
                execs.by_id.remove(&oldest);
            }
        }
        if let Ok(container) = self.table().find(container) {
            self.container_event(&container, "exec_die", &[("execID", id), ("exitCode", &code.to_string())]);
        }
    }

    /// The container ended: so did its execs.
    pub(crate) fn execs_ended(&self, container: &str) {
        for exec in self.execs().lock().by_id.values_mut().filter(|exec| exec.view.container_id == container && exec.view.running) {
            exec.view.running = false;
            let code = *exec.view.exit_code.get_or_insert(137);
            for waiter in exec.waiters.drain(..) {
                waiter.send(code);
            }
        }
    }

    /// Forgets one that nobody will ask for.
    pub(crate) fn forget_exec(&self, id: &str) {
        let mut execs = self.execs().lock();
        execs.by_id.remove(id);
        execs.ended.retain(|ended| ended != id);
    }

    pub(crate) fn forget_execs(&self, container: &str) {
        self.execs().lock().by_id.retain(|_, exec| exec.view.container_id != container);
    }
}

/// An event of an exec: the program, a space, its arguments.
fn action(verb: &str, request: &ExecRequest) -> String {
    let (program, arguments) = request.cmd.split_first().map_or(("", &[][..]), |(program, arguments)| (program.as_str(), arguments));
    format!("{verb}: {program} {}", arguments.join(" "))
}

/// What an exec changes of its container's process.
fn change_options(options: &mut Options, wish: &ExecRequest, names_terminal: bool, every_right: u64) {
    options.arguments.clone_from(&wish.cmd);
    // The terminal that process 1 has is not this one's, unless the user has named one.
    if !wish.tty && !names_terminal {
        options.environment.retain(|line| line != "TERM=xterm");
    }
    for line in &wish.env {
        let key = line.split('=').next().unwrap_or_default().to_owned();
        options.environment.retain(|present| present.split('=').next() != Some(&key));
        options.environment.push(line.clone());
    }
    if !wish.working_dir.is_empty() {
        options.cwd.clone_from(&wish.working_dir);
    }
    if wish.privileged {
        options.capabilities = every_right;
    }
    if wish.tty && !options.environment.iter().any(|line| line.starts_with("TERM=")) {
        options.environment.push("TERM=xterm".into());
    }
    options.terminal = wish.tty;
    options.stdin_once = true;
}
