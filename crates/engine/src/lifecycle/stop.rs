//! Ending: stop, kill, restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Engine;
use crate::error::EngineError;
use crate::model::{ContainerSpec, Status};
use crate::signals;
use crate::subscription::Subscription;
use crate::table::{Container, WaitCondition, WaitResult};

/// Seconds between the stop signal and the kill, when nobody says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long a killed container may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The signal that a container wants to be stopped with. One that does not exist, as an image may name, is none.
fn own_signal(spec: &ContainerSpec) -> Option<i32> {
    signals::parse(&spec.config.stop_signal).ok()
}

impl Engine {
    /// Asks a container to end, and kills it when it does not within `timeout` seconds (negative: never).
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it does not run.
    pub fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let signal = signal.filter(|text| !text.is_empty()).map(signals::parse).transpose()?;
        if self.cancel_restart(&container) {
            return Ok(());
        }
        let operation = container.begin();
        if !container.facts().state.status.is_running() {
            return Err(EngineError::NotModified(format!("Container {name} is already stopped")));
        }
        container.facts().state.manually_stopped = true;
        let stopped = self.stop_locked(&container, signal, timeout);
        drop(operation);
        stopped?;
        self.container_event(&container, "stop", &[]);
        Ok(())
    }

    /// Ends a container whose operation lock is held, and waits until it is over.
    pub(crate) fn stop_locked(&self, container: &Arc<Container>, signal: Option<i32>, timeout: Option<i64>) -> Result<(), EngineError> {
        let (id, signal, timeout, paused) = {
            let mut facts = container.facts();
            facts.stopping = true;
            let signal = signal.or_else(|| own_signal(&facts.spec)).unwrap_or(SIGTERM);
            let timeout = timeout.or(facts.spec.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
            (facts.spec.id.clone(), signal, timeout, facts.state.status == Status::Paused)
        };
        let mut end = container.facts().wait(WaitCondition::NotRunning);
        if paused {
            self.resume_locked(container)?;
        }
        let timeout = u64::try_from(timeout).ok().map(Duration::from_secs);
        let begun = Instant::now();
        let told = self.stop_signal(container, signal, timeout.unwrap_or(Duration::MAX)).is_ok();
        if told && wait_end(&mut end, timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()))) {
            return Ok(());
        }
        // A race with its own end is no failure: the wait below tells.
        if let Err(error) = self.stop_signal(container, SIGKILL, Duration::ZERO) {
            tracing::debug!(container = %id, error = %error, "kill after stop");
        }
        if wait_end(&mut end, Some(KILL_TIMEOUT)) {
            return Ok(());
        }
        Err(EngineError::Room {
            text: format!("cannot stop container: {id}: tried to kill container, but did not receive an exit event"),
            kind: sampan_base::ErrorKind::Internal,
        })
    }

    /// Sends a signal to process 1 of a container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run, [`EngineError::Invalid`] for no such signal.
    pub fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        self.kill_inner(name, signal).map_err(|error| {
            let (text, kind) = (error.to_string(), sampan_base::Failure::kind(&error));
            let text = if text.starts_with("cannot kill container") { text } else { format!("cannot kill container: {name}: {text}") };
            EngineError::Room { text, kind }
        })
    }

    fn kill_inner(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let number = if signal.is_empty() { SIGKILL } else { signals::parse(signal)? };
        let container = self.table().find(name)?;
        let (id, deadly) = {
            let facts = container.facts();
            let own = own_signal(&facts.spec);
            (facts.spec.id.clone(), number == SIGKILL || own.is_none_or(|own| own == number))
        };
        if deadly && self.cancel_restart(&container) {
            return Ok(());
        }
        let mut end = {
            let mut facts = container.facts();
            if !facts.state.status.is_running() {
                return Err(EngineError::Conflict(format!("cannot kill container: {name}: container {id} is not running")));
            }
            facts.state.manually_stopped = true;
            if deadly {
                facts.stopping = true;
            }
            facts.wait(WaitCondition::NotRunning)
        };
        if deadly && container.facts().state.status == Status::Paused {
            self.resume_locked(&container)?;
        }
        self.send_signal(&container, number, Duration::MAX)?;
        self.container_event(&container, "kill", &[("signal", &number.to_string())]);
        if number == SIGKILL {
            wait_end(&mut end, Some(KILL_TIMEOUT));
        }
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// As for stop and start.
    pub fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let signal = signal.filter(|text| !text.is_empty()).map(signals::parse).transpose()?;
        self.cancel_restart(&container);
        let operation = container.begin();
        if container.facts().state.status.is_running() {
            // An automatic removal must not come between the two halves.
            let auto_remove = std::mem::take(&mut container.facts().spec.host.auto_remove);
            let stopped = self.stop_locked(&container, signal, timeout);
            container.facts().spec.host.auto_remove = auto_remove;
            stopped?;
            self.container_event(&container, "stop", &[]);
        }
        container.facts().state.manually_stopped = false;
        self.start_locked(&container)?;
        drop(operation);
        self.container_event(&container, "restart", &[]);
        Ok(())
    }

    /// Ends a restart that is waiting for its moment; says whether there was one.
    pub(crate) fn cancel_restart(&self, container: &Arc<Container>) -> bool {
        let mut facts = container.facts();
        if facts.state.status != Status::Restarting {
            return false;
        }
        if let Some(cancel) = facts.restart_cancel.take() {
            cancel.cancel();
        }
        facts.state.status = Status::Exited;
        facts.state.manually_stopped = true;
        if let Err(error) = self.rows().update_state(&facts.spec.id, &facts.state) {
            tracing::error!(container = %facts.spec.id, error = %crate::chain(&error), "cannot write the state of a container");
        }
        facts.tell_exit();
        true
    }

    /// Sends a signal and tells of it.
    fn stop_signal(&self, container: &Arc<Container>, signal: i32, patience: Duration) -> Result<(), EngineError> {
        self.send_signal(container, signal, patience)?;
        self.container_event(container, "kill", &[("signal", &signal.to_string())]);
        Ok(())
    }

    /// Sends a signal; how long it may wait for a program that is only beginning is `patience`.
    pub(crate) fn send_signal(&self, container: &Arc<Container>, signal: i32, patience: Duration) -> Result<(), EngineError> {
        let id = container.id();
        self.sandboxes().signal(&id, signal, patience).map_err(|error| EngineError::room(&error))
    }
}

/// Waits for an end; says whether it came. `None`: for ever.
fn wait_end(end: &mut Subscription<WaitResult>, timeout: Option<Duration>) -> bool {
    match timeout {
        None => end.recv().is_some(),
        Some(timeout) => end.recv_deadline(Instant::now() + timeout).is_some(),
    }
}
