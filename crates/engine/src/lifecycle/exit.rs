//! What follows when a container's process 1 ended: facts, row, event, waiters, restart or removal.

use std::sync::Arc;
use std::time::Duration;

use sampan_base::Cancel;

use crate::Engine;
use crate::clock;
use crate::model::Status;
use crate::restart::{self, Next};
use crate::table::Container;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) oom_killed: bool,
    /// Nanoseconds since the epoch; 0: now.
    pub(crate) at: i64,
    /// Why the code is not the program's own; empty when it is.
    pub(crate) error: String,
}

impl Engine {
    /// Takes the end of a run. Called once a run, by the supervisor or when a restarted daemon finds the record.
    pub(crate) fn on_exit(self: &Arc<Self>, container: &Arc<Container>, ended: &Ended) {
        let id = container.id();
        {
            let mut facts = container.facts();
            if facts.ended_run == Some(facts.run) {
                return;
            }
            facts.ended_run = Some(facts.run);
        }
        self.sandboxes().cleanup(&id);
        let next = self.record_exit(container, ended);
        let (code, oom) = (ended.code.to_string(), ended.oom_killed);
        if oom {
            self.container_event(container, "oom", &[]);
        }
        let duration = {
            let facts = container.facts();
            (facts.state.finished_at - facts.state.started_at).max(0) / 1_000_000_000
        };
        self.container_event(container, "die", &[("execDuration", &duration.to_string()), ("exitCode", &code)]);
        self.execs_ended(&id);
        self.mount_events(container, "unmount");
        match next {
            Next::After(delay) => self.restart_later(container, delay),
            Next::Stay => {
                container.facts().tell_exit();
                if container.facts().spec.host.auto_remove {
                    self.auto_remove(container);
                }
            }
        }
    }

    /// Writes the end down and decides what follows.
    fn record_exit(&self, container: &Arc<Container>, ended: &Ended) -> Next {
        let mut facts = container.facts();
        let stopping = facts.stopping || self.is_shutting_down();
        let last_delay = facts.restart_delay;
        let policy = facts.spec.host.restart_policy;
        facts.end_health();
        let state = &mut facts.state;
        state.pid = 0;
        state.exit_code = ended.code;
        state.oom_killed = ended.oom_killed;
        state.error.clone_from(&ended.error);
        state.finished_at = if ended.at == 0 { clock::now_nanos() } else { ended.at };
        state.ports.clear();
        state.endpoints.clear();
        let next = restart::after_exit(policy, state, stopping, last_delay);
        state.status = if next == Next::Stay { Status::Exited } else { Status::Restarting };
        if let Err(error) = self.rows().update_state(&facts.spec.id, &facts.state) {
            tracing::error!(container = %facts.spec.id, error = %crate::chain(&error), "cannot write the end of a container");
        }
        if let Next::After(delay) = next {
            facts.restart_delay = delay;
            facts.tell_exit();
        }
        next
    }

    fn restart_later(self: &Arc<Self>, container: &Arc<Container>, delay: u64) {
        let cancel = Cancel::new();
        container.facts().restart_cancel = Some(cancel.clone());
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        self.spawn("restart", move || {
            if cancel.wait_timeout(Duration::from_millis(delay)) {
                return;
            }
            let operation = container.begin();
            {
                let mut facts = container.facts();
                if cancel.is_cancelled() || facts.state.status != Status::Restarting {
                    return;
                }
                facts.restart_cancel = None;
                facts.state.restart_count += 1;
            }
            if let Err(error) = engine.start_locked(&container) {
                tracing::warn!(container = %container.id(), error = %crate::chain(&error), "cannot restart a container");
            }
            drop(operation);
        });
    }

    /// Removes a container that was started with `--rm`, in the background of its end.
    pub(crate) fn auto_remove(&self, container: &Arc<Container>) {
        let id = container.id();
        let options = super::RemoveOptions { force: false, volumes: true, link: false };
        if let Err(error) = self.remove(&id, options) {
            tracing::warn!(container = %id, error = %crate::chain(&error), "cannot remove a container that was to go at its end");
        }
    }
}
