//! The short verbs: pause, unpause, rename, wait, resize, update.

use std::sync::Arc;

use crate::Engine;
use crate::create::{check_name, name_conflict};
use crate::error::EngineError;
use crate::model::{Resources, RestartPolicy, RestartPolicyName, Status};
use crate::subscription::Subscription;
use crate::table::{Container, WaitCondition, WaitResult};

impl Engine {
    /// Freezes a container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run or is frozen already.
    pub fn pause(&self, name: &str) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let operation = container.begin();
        let (id, status) = id_and_status(&container);
        match status {
            Status::Running => {}
            Status::Paused => return Err(EngineError::Conflict(format!("Container {id} is already paused"))),
            Status::Restarting => {
                return Err(EngineError::Conflict(format!("Container {id} is restarting, wait until the container is running")));
            }
            _ => return Err(EngineError::Conflict(format!("container {id} is not running"))),
        }
        self.sandboxes().pause(&id).map_err(|error| EngineError::room(&error))?;
        container.facts().end_health();
        self.set_status(&container, Status::Paused)?;
        drop(operation);
        self.container_event(&container, "pause", &[]);
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it is not frozen.
    pub fn unpause(&self, name: &str) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let operation = container.begin();
        let (id, status) = id_and_status(&container);
        if status != Status::Paused {
            return Err(EngineError::Conflict(format!("Container {id} is not paused")));
        }
        self.resume_locked(&container)?;
        drop(operation);
        self.container_event(&container, "unpause", &[]);
        Ok(())
    }

    /// Thaws a container without an event of its own.
    pub(crate) fn resume_locked(&self, container: &Arc<Container>) -> Result<(), EngineError> {
        let (id, _) = id_and_status(container);
        self.sandboxes().resume(&id).map_err(|error| EngineError::room(&error))?;
        let stored = self.set_status(container, Status::Running);
        self.watch_health(container);
        stored
    }

    fn set_status(&self, container: &Arc<Container>, status: Status) -> Result<(), EngineError> {
        let mut facts = container.facts();
        // It may have ended meanwhile: an end is not overwritten.
        if facts.state.status.is_running() {
            facts.state.status = status;
        }
        self.rows().update_state(&facts.spec.id, &facts.state)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for a taken name, [`EngineError::Invalid`] for a bad one.
    pub fn rename(&self, name: &str, new_name: &str) -> Result<(), EngineError> {
        if name.is_empty() || new_name.is_empty() {
            return Err(EngineError::Invalid("Neither old nor new names may be empty".into()));
        }
        let container = self.table().find(name)?;
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name);
        let operation = container.begin();
        let (id, old) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.spec.name.clone())
        };
        if old == new_name {
            return Err(EngineError::Invalid("Renaming a container with the same name as its current name".into()));
        }
        check_name(new_name).map_err(|error| {
            EngineError::Invalid(format!(
                "Error when allocating new name: {}",
                error.to_string().replace(&format!("({new_name})"), &format!("(/{new_name})"))
            ))
        })?;
        self.table().reserve(new_name, &id).map_err(|owner| name_conflict(new_name, &owner))?;
        let mut spec = container.facts().spec.clone();
        new_name.clone_into(&mut spec.name);
        if let Err(error) = self.rows().rename_container(&spec) {
            self.table().release(new_name, &id);
            return Err(error);
        }
        container.facts().spec = spec;
        self.table().release(&old, &id);
        drop(operation);
        self.container_event(&container, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    /// Waits for a container's end or removal.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<Subscription<WaitResult>, EngineError> {
        Ok(self.table().find(name)?.facts().wait(condition))
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub fn resize(&self, name: &str, width: u16, height: u16) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let (id, status) = id_and_status(&container);
        if !status.is_running() {
            return Err(EngineError::Conflict(format!("cannot resize a stopped container: container {id} is not running")));
        }
        self.sandboxes().resize(&id, None, width, height).map_err(|error| EngineError::room(&error))?;
        self.container_event(&container, "resize", &[("height", &height.to_string()), ("width", &width.to_string())]);
        Ok(())
    }

    /// Changes limits and restart policy; 0 and empty fields stay as they are. Gives warnings.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for impossible limits; nothing changes then.
    pub fn update(&self, name: &str, wish: &Resources, restart: Option<RestartPolicy>) -> Result<Vec<String>, EngineError> {
        let container = self.table().find(name)?;
        let operation = container.begin();
        let mut host = container.facts().spec.host.clone();
        if let Some(policy) = restart {
            if host.auto_remove && policy.name != RestartPolicyName::No {
                return Err(EngineError::Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container".into(),
                ));
            }
            host.restart_policy = policy;
        }
        overlay(&mut host.resources, wish)?;
        let config = container.facts().spec.config.clone();
        let cannot = |error: EngineError| match error {
            EngineError::Invalid(text) => EngineError::Invalid(text),
            other => other,
        };
        let warnings = self.check_options(&config, &mut host).map_err(cannot)?;
        let (id, status) = id_and_status(&container);
        if status.is_running() {
            self.sandboxes().update(&id, &crate::request::limits(&host)).map_err(|error| EngineError::room(&error))?;
        }
        let spec = {
            let mut facts = container.facts();
            facts.spec.host = host;
            facts.spec.clone()
        };
        self.rows().update_spec(&spec)?;
        drop(operation);
        self.container_event(&container, "update", &[]);
        Ok(warnings)
    }
}

/// Puts the given limits over the present ones.
fn overlay(limits: &mut Resources, wish: &Resources) -> Result<(), EngineError> {
    if wish.nano_cpus != 0 && (limits.cpu_period != 0 || limits.cpu_quota != 0) {
        return Err(EngineError::Invalid(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota/Period has already been set".into(),
        ));
    }
    if (wish.cpu_period != 0 || wish.cpu_quota != 0) && limits.nano_cpus != 0 {
        return Err(EngineError::Invalid(
            "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set".into(),
        ));
    }
    if wish.memory > limits.memory_swap && limits.memory_swap > 0 && wish.memory_swap == 0 {
        return Err(EngineError::Invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time".into(),
        ));
    }
    let set = |mine: &mut i64, theirs: i64| {
        if theirs != 0 {
            *mine = theirs;
        }
    };
    set(&mut limits.cpu_shares, wish.cpu_shares);
    set(&mut limits.memory, wish.memory);
    set(&mut limits.nano_cpus, wish.nano_cpus);
    set(&mut limits.cpu_period, wish.cpu_period);
    set(&mut limits.cpu_quota, wish.cpu_quota);
    set(&mut limits.cpu_realtime_period, wish.cpu_realtime_period);
    set(&mut limits.cpu_realtime_runtime, wish.cpu_realtime_runtime);
    set(&mut limits.memory_reservation, wish.memory_reservation);
    set(&mut limits.memory_swap, wish.memory_swap);
    if wish.blkio_weight != 0 {
        limits.blkio_weight = wish.blkio_weight;
    }
    for (mine, theirs) in [(&mut limits.cpuset_cpus, &wish.cpuset_cpus), (&mut limits.cpuset_mems, &wish.cpuset_mems)] {
        if !theirs.is_empty() {
            mine.clone_from(theirs);
        }
    }
    if let Some(limit) = wish.pids_limit {
        // Nothing and everything below it take the limit away.
        limits.pids_limit = Some(limit.max(0));
    }
    Ok(())
}

fn id_and_status(container: &Container) -> (String, Status) {
    let facts = container.facts();
    (facts.spec.id.clone(), facts.state.status)
}
