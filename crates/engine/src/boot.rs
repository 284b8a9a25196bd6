//! What a starting daemon finds, and the thread that hears of ends.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use sampan_net::{Binding, Endpoint, Protocol};
use sampan_sandbox::{Adopted, SandboxEvent};

use crate::Engine;
use crate::error::EngineError;
use crate::lifecycle::Ended;
use crate::model::{PortProtocol, State, Status};
use crate::restart;
use crate::table::Container;

impl Engine {
    /// Reads the rows, takes over what lives, settles what ended, and follows the restart policies.
    pub(crate) fn recover(self: &Arc<Self>, ends: Receiver<SandboxEvent>) -> Result<(), EngineError> {
        let mut to_start = Vec::new();
        let (mut living, mut ended) = (Vec::new(), Vec::new());
        for (spec, state) in self.rows().containers()? {
            let folder = self.container_folder(&spec.id);
            let paused = state.status == Status::Paused;
            let recorded = state.status.is_running();
            let was_running = recorded || state.status == Status::Restarting;
            let before = Ended { code: state.exit_code, oom_killed: false, at: 0, error: String::new() };
            let maybe_started = was_running || self.may_have_started(&spec.id);
            let container = Container::new(spec, state);
            self.table().insert(&container);
            if maybe_started {
                let spec = container.facts().spec.clone();
                let options = self.options(&spec).unwrap_or_default();
                match self.sandboxes().adopt(&spec.id, &folder, options, paused) {
                    Adopted::Running { .. } if !recorded => {
                        // Nobody was told of this start, and its place in the network was not written down.
                        self.sandboxes().abandon(&spec.id, &folder);
                        if was_running {
                            ended.push((Arc::clone(&container), before));
                        }
                    }
                    Adopted::Exited(_) | Adopted::Lost if !was_running => {}
                    Adopted::Running { pid } => living.extend(self.take_over(&container, pid)),
                    Adopted::Exited(record) => {
                        ended.push((
                            Arc::clone(&container),
                            Ended { code: record.code, oom_killed: record.oom, at: record.at, error: String::new() },
                        ));
                    }
                    Adopted::Lost => {
                        let error = "the container's shim was lost with its exit code".to_owned();
                        ended.push((Arc::clone(&container), Ended { code: 255, oom_killed: false, at: 0, error }));
                    }
                }
            }
            to_start.push((container, was_running));
        }
        self.sandboxes().adopt_network(living).map_err(|error| EngineError::room(&error))?;
        for (container, ended) in ended {
            self.on_exit(&container, &ended);
        }
        let all = self.table().all();
        let (living, left): (Vec<_>, Vec<_>) = all.iter().partition(|container| container.facts().state.status.is_running());
        let left: Vec<String> = left.iter().map(|container| container.id()).collect();
        self.sandboxes().sweep(&left, &living.iter().map(|container| container.id()).collect());
        self.listen(ends);
        for (container, was_running) in to_start {
            self.start_at_boot(&container, was_running);
        }
        Ok(())
    }

    /// A runtime folder stays when a daemon was killed between a start and its row.
    fn may_have_started(&self, id: &str) -> bool {
        self.config.exec_root.join("containers").join(id).exists()
    }

    fn take_over(&self, container: &Arc<Container>, pid: u32) -> Option<(String, Endpoint)> {
        let mut facts = container.facts();
        let id = facts.spec.id.clone();
        let state = &mut facts.state;
        state.pid = pid;
        state.has_been_started = true;
        if state.status != Status::Paused {
            state.status = Status::Running;
        }
        let endpoint = endpoint(state).map(|endpoint| (id, endpoint));
        facts.begin_health();
        drop(facts);
        self.watch_health(container);
        endpoint
    }

    fn start_at_boot(self: &Arc<Self>, container: &Arc<Container>, was_running: bool) {
        let (wanted, unwanted) = {
            let facts = container.facts();
            let idle = !facts.state.status.is_running() && facts.state.status != Status::Restarting;
            (idle && restart::at_boot(facts.spec.host.restart_policy, &facts.state, was_running), idle && facts.spec.host.auto_remove)
        };
        if unwanted {
            // Whoever was to start it is gone with the earlier daemon; one that has ended just now is gone already.
            if self.table().find(&container.id()).is_ok() {
                self.auto_remove(container);
            }
            return;
        }
        if !wanted {
            return;
        }
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        self.spawn("boot", move || {
            let _operation = container.begin();
            if let Err(error) = engine.start_locked(&container) {
                tracing::warn!(container = %container.id(), error = %crate::chain(&error), "cannot start a container at boot");
            }
        });
    }

    /// Hears of ends. What follows an end may take long: each gets a thread.
    fn listen(self: &Arc<Self>, ends: Receiver<SandboxEvent>) {
        let engine = Arc::downgrade(self);
        self.spawn("ends", move || {
            for event in ends {
                let Some(engine) = engine.upgrade() else { return };
                engine.take_event(event);
            }
        });
    }

    fn take_event(self: &Arc<Self>, event: SandboxEvent) {
        let (id, ended) = match event {
            SandboxEvent::Exited { id, exec, code, oom, at } if exec.is_empty() => {
                (id, Ended { code, oom_killed: oom, at, error: String::new() })
            }
            SandboxEvent::Exited { id, exec, code, .. } => {
                self.exec_ended(&id, &exec, code);
                return;
            }
            SandboxEvent::Lost { id } => {
                self.sandboxes().kill_all(&id);
                let error = "the container's shim was killed".to_owned();
                (id, Ended { code: 137, oom_killed: false, at: 0, error })
            }
        };
        let Ok(container) = self.table().find(&id) else { return };
        let run = container.facts().run;
        let engine = Arc::clone(self);
        self.spawn("end", move || {
            // A start that is being told of its success comes first; a later run is not ended by an earlier one's message.
            let facts = container.facts();
            let stale = facts.run != run || !facts.state.status.is_running();
            drop(facts);
            if stale && !engine.await_started(&container, run) {
                return;
            }
            engine.on_exit(&container, &ended);
        });
    }

    /// A process may end before its start is written down: waits for the start's operation to be over.
    fn await_started(&self, container: &Arc<Container>, run: u64) -> bool {
        drop(container.begin());
        let facts = container.facts();
        facts.run == run + 1 && facts.state.status.is_running()
    }
}

/// The network place that a state remembers.
fn endpoint(state: &State) -> Option<Endpoint> {
    let view = state.endpoints.get("bridge")?;
    let mac: Vec<u8> = view.mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    let mut ports = Vec::new();
    for (port, bindings) in &state.ports {
        let protocol = if port.protocol == PortProtocol::Udp { Protocol::Udp } else { Protocol::Tcp };
        for binding in bindings {
            ports.push(Binding {
                protocol,
                container_port: port.port,
                host_ip: binding.host_ip.parse().ok()?,
                host_port: binding.host_port.parse().ok()?,
            });
        }
    }
    let (ip, gateway) = (view.ip.parse().ok()?, view.gateway.parse().ok()?);
    Some(Endpoint { ip, prefix: view.prefix_len, gateway, mac: mac.try_into().ok()?, host_link: String::new(), ports })
}
