//! The containers in memory: found by name, id or prefix; each with the locks and waiters of its life.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::LookupError;
use crate::model::{ContainerSpec, State, Status};
use crate::subscription::{Sender, Subscription, channel, ready};

/// When a `wait` is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once if it does not run, else when it ends.
    NotRunning,
    /// When it ends the next time.
    NextExit,
    /// When it is removed.
    Removed,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitResult {
    /// The exit code.
    pub code: i64,
    /// Why the start failed, if it did.
    pub error: Option<String>,
}

/// One container: its facts behind locks that are held for moments only.
#[derive(Debug)]
pub(crate) struct Container {
    /// Serialises start, stop, remove and their like; held while they work.
    pub(crate) operation: Mutex<()>,
    facts: Mutex<Facts>,
}

/// What may be read or changed under the short lock.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) spec: ContainerSpec,
    pub(crate) state: State,
    /// Attach sockets that wait for the next start.
    pub(crate) pending: Vec<PendingAttach>,
    /// Counts runs, so that a late event of an earlier run is recognised.
    pub(crate) run: u64,
    /// The run whose end was taken.
    pub(crate) ended_run: Option<u64>,
    /// A stop was asked for: the restart policy keeps still.
    pub(crate) stopping: bool,
    /// Delay of the next restart, in milliseconds; 0: the first.
    pub(crate) restart_delay: u64,
    /// Ends a pending restart.
    pub(crate) restart_cancel: Option<sampan_base::Cancel>,
    /// Ends the probing of its health; `None`: nobody probes.
    pub(crate) probing: Option<sampan_base::Cancel>,
    waiters: Vec<(WaitCondition, Sender<WaitResult>)>,
}

/// An attach that came before its container's start.
#[derive(Debug)]
pub(crate) struct PendingAttach {
    pub(crate) socket: std::os::fd::OwnedFd,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Container {
    pub(crate) fn new(spec: ContainerSpec, state: State) -> Arc<Self> {
        let facts = Facts {
            spec,
            state,
            pending: Vec::new(),
            run: 0,
            ended_run: None,
            stopping: false,
            restart_delay: 0,
            restart_cancel: None,
            probing: None,
            waiters: Vec::new(),
        };
        Arc::new(Self { operation: Mutex::new(()), facts: Mutex::new(facts) })
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation that must not overlap with another on this container.
    pub(crate) fn begin(&self) -> MutexGuard<'_, ()> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> String {
        self.facts().spec.id.clone()
    }
}

impl Facts {
    /// Registers a waiter; answers at once where the condition holds already.
    pub(crate) fn wait(&mut self, condition: WaitCondition) -> Subscription<WaitResult> {
        if condition == WaitCondition::NotRunning && !self.state.status.is_running() && self.state.status != Status::Restarting {
            return ready([self.result()]);
        }
        let (sender, subscription) = channel(1);
        self.waiters.retain(|(_, waiter)| waiter.is_open());
        self.waiters.push((condition, sender));
        subscription
    }

    /// Answers the waiters of an end, also where a restart follows: each run's end is one, as in the original.
    pub(crate) fn tell_exit(&mut self) {
        let result = self.result();
        self.waiters.retain(|(condition, waiter)| match condition {
            WaitCondition::Removed => true,
            WaitCondition::NotRunning | WaitCondition::NextExit => {
                waiter.send(result.clone());
                false
            }
        });
    }

    /// Answers everyone: the container is gone.
    pub(crate) fn tell_removed(&mut self) {
        let result = self.result();
        for (_, waiter) in self.waiters.drain(..) {
            waiter.send(result.clone());
        }
    }

    fn result(&self) -> WaitResult {
        let error = Some(self.state.error.clone()).filter(|text| !text.is_empty());
        WaitResult { code: i64::from(self.state.exit_code), error }
    }
}

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Table {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    by_name: HashMap<String, String>,
}

impl Table {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a container by full id, by name (with or without slash) or by a prefix of its id, in this order.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>, LookupError> {
        let inner = self.read();
        let plain = name.strip_prefix('/').unwrap_or(name);
        if let Some(container) = inner.by_id.get(name).or_else(|| inner.by_name.get(plain).and_then(|id| inner.by_id.get(id))) {
            return Ok(Arc::clone(container));
        }
        let mut fitting = inner.by_id.range(name.to_owned()..).take_while(|(id, _)| !name.is_empty() && id.starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(name.to_owned())),
            (None, _) => Err(LookupError::NoSuchContainer(name.to_owned())),
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Reserves a name for an id; the id that has it already is the error.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), String> {
        match self.write().by_name.entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(owner) => Err(owner.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(id.to_owned());
                Ok(())
            }
        }
    }

    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut inner = self.write();
        if inner.by_name.get(name).is_some_and(|owner| owner == id) {
            inner.by_name.remove(name);
        }
    }

    pub(crate) fn insert(&self, container: &Arc<Container>) {
        let (id, name) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.spec.name.clone())
        };
        let mut inner = self.write();
        inner.by_name.insert(name, id.clone());
        inner.by_id.insert(id, Arc::clone(container));
    }

    pub(crate) fn remove(&self, id: &str, name: &str) {
        self.release(name, id);
        self.write().by_id.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str) -> Arc<Container> {
        Container::new(ContainerSpec { id: id.into(), name: name.into(), ..ContainerSpec::default() }, State::default())
    }

    #[test]
    fn names_ids_and_prefixes_find_containers() {
        let table = Table::default();
        table.insert(&container("abc1", "web"));
        table.insert(&container("abd2", "abc"));
        let found = |name: &str| table.find(name).map(|container| container.id()).map_err(|error| error.to_string());
        assert_eq!(found("web"), Ok("abc1".into()));
        assert_eq!(found("/web"), Ok("abc1".into()));
        assert_eq!(found("abc"), Ok("abd2".into()), "a name wins over a prefix");
        assert_eq!(found("abd"), Ok("abd2".into()));
        assert_eq!(found("ab"), Err("Multiple IDs found with provided prefix: ab".into()));
        assert_eq!(found("x"), Err("No such container: x".into()));
        assert_eq!(found(""), Err("No such container: ".into()));
    }

    #[test]
    fn waiters_hear_what_they_wait_for() {
        let container = container("a", "b");
        let mut facts = container.facts();
        assert_eq!(facts.wait(WaitCondition::NotRunning).try_recv().map(|result| result.code), Some(0));
        facts.state.status = Status::Running;
        let (mut ended, mut next, mut removed) =
            (facts.wait(WaitCondition::NotRunning), facts.wait(WaitCondition::NextExit), facts.wait(WaitCondition::Removed));
        facts.state.exit_code = 3;
        facts.tell_exit();
        let heard = [&mut next, &mut ended, &mut removed].map(|one| one.try_recv().map(|result| result.code));
        assert_eq!(heard, [Some(3), Some(3), None]);
        facts.state.status = Status::Restarting;
        let mut again = facts.wait(WaitCondition::NotRunning);
        assert_eq!(again.try_recv(), None, "a container between two runs counts as running");
        facts.tell_removed();
        assert_eq!(removed.try_recv().map(|result| result.code), Some(3));
    }
}
