//! Starting: from a row to a running process.

use std::sync::Arc;

use crate::Engine;
use crate::clock;
use crate::error::EngineError;
use crate::model::Status;
use crate::table::Container;

/// The exit code of a container that never became its program, for want of a better one.
const UNKNOWN: i32 = 128;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it runs already; [`EngineError::Conflict`] while it is paused or being removed;
    /// the sandbox's failures with Docker's texts, which are also kept in the container's state.
    pub fn start(&self, name: &str) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let operation = container.begin();
        {
            let mut facts = container.facts();
            match facts.state.status {
                Status::Running => return Err(EngineError::NotModified(format!("Container {name} is already running"))),
                Status::Paused => return Err(EngineError::Conflict("cannot start a paused container, try unpause instead".into())),
                Status::Removing => {
                    return Err(EngineError::Conflict("container is marked for removal and cannot be started".into()));
                }
                Status::Dead => return Err(EngineError::Conflict("container is marked as dead and cannot be started".into())),
                Status::Created | Status::Exited | Status::Restarting => {}
            }
            facts.state.manually_stopped = false;
            facts.state.restart_count = 0;
            facts.restart_delay = 0;
            if let Some(cancel) = facts.restart_cancel.take() {
                cancel.cancel();
            }
        }
        let started = self.start_locked(&container);
        drop(operation);
        if started.is_err() && container.facts().spec.host.auto_remove {
            self.auto_remove(&container);
        }
        started
    }

    /// Starts a container whose operation lock is held. Why it failed is kept in the container's state.
    pub(crate) fn start_locked(&self, container: &Arc<Container>) -> Result<(), EngineError> {
        let request = self.start_request(container).map_err(|error| self.start_failed(container, UNKNOWN, error))?;
        let running =
            self.sandboxes().start(request).map_err(|error| self.start_failed(container, error.exit_code(), EngineError::room(&error)))?;
        let id = container.id();
        let mut facts = container.facts();
        facts.run += 1;
        facts.stopping = false;
        let state = &mut facts.state;
        state.status = Status::Running;
        state.pid = running.pid;
        state.exit_code = 0;
        state.error.clear();
        state.oom_killed = false;
        state.has_been_started = true;
        state.started_at = clock::now_nanos();
        crate::request::remember_network(state, &id, &running);
        facts.begin_health();
        let stored = self.rows().update_state(&facts.spec.id, &facts.state);
        drop(facts);
        self.watch_health(container);
        self.container_event(container, "start", &[]);
        self.mount_events(container, "mount");
        stored
    }

    /// Writes down why a container did not start; gives that reason, or the failure to write.
    fn start_failed(&self, container: &Arc<Container>, exit_code: i32, error: EngineError) -> EngineError {
        let mut facts = container.facts();
        facts.pending.clear();
        facts.state.exit_code = exit_code;
        facts.state.error = error.to_string();
        if facts.state.status == Status::Restarting {
            facts.state.status = Status::Exited;
        }
        let stored = self.rows().update_state(&facts.spec.id, &facts.state);
        facts.tell_exit();
        stored.err().unwrap_or(error)
    }
}
