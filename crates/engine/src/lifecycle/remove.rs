//! Removal: the row first, then the files.

use std::sync::Arc;

use crate::Engine;
use crate::error::EngineError;
use crate::model::Status;
use crate::table::Container;

/// How to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Also its anonymous volumes.
    pub volumes: bool,
    /// A legacy link instead of a container.
    pub link: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] while it runs (without `force`) or is already being removed.
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        if options.link {
            return Err(EngineError::Unsupported("not supported: rm --link (legacy links come later)".into()));
        }
        self.cancel_restart_for_removal(&container, name, options.force)?;
        let operation = container.begin();
        let (id, status) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.state.status)
        };
        match status {
            Status::Removing => return Err(EngineError::Conflict(format!("removal of container {name} is already in progress"))),
            Status::Running | Status::Paused if !options.force => {
                let (state, hint) = if status == Status::Paused {
                    ("paused", "unpause and then stop the container before removal or force remove")
                } else {
                    ("running", "stop the container before removing or force remove")
                };
                return Err(EngineError::Conflict(format!("cannot remove container \"{name}\": container is {state}: {hint}")));
            }
            Status::Running | Status::Paused => {
                // Its own `--rm` must not remove it a second time.
                container.facts().spec.host.auto_remove = false;
                self.stop_locked(&container, Some(9), Some(10))?;
            }
            Status::Created | Status::Exited | Status::Restarting | Status::Dead => {}
        }
        self.remove_locked(&container, &id, options)?;
        drop(operation);
        Ok(())
    }

    fn cancel_restart_for_removal(&self, container: &Arc<Container>, name: &str, force: bool) -> Result<(), EngineError> {
        if container.facts().state.status != Status::Restarting {
            return Ok(());
        }
        if !force {
            return Err(EngineError::Conflict(format!(
                "cannot remove container \"{name}\": container is restarting: stop the container before removing or force remove"
            )));
        }
        self.cancel_restart(container);
        Ok(())
    }

    fn remove_locked(&self, container: &Arc<Container>, id: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let (name, mounts) = {
            let mut facts = container.facts();
            facts.state.status = Status::Removing;
            (facts.spec.name.clone(), facts.spec.mounts.clone())
        };
        self.sandboxes().cleanup(id);
        self.rows().delete_container(id)?;
        self.table().remove(id, &name);
        self.forget_execs(id);
        if let Err(error) = self.discard(&self.container_folder(id)) {
            tracing::warn!(container = %id, error = %crate::chain(&error), "cannot remove the folder of a container");
        }
        if options.volumes {
            for mount in mounts.iter().filter(|mount| mount.kind == "volume" && mount.anonymous) {
                // Another container may have come to use it: then it stays.
                if let Err(error) = self.volume_remove(&mount.name, true) {
                    tracing::debug!(volume = %mount.name, error = %crate::chain(&error), "an anonymous volume stays");
                }
            }
        }
        self.container_event(container, "destroy", &[]);
        container.facts().tell_removed();
        Ok(())
    }
}
