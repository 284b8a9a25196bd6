//! The engine itself: its parts, and how they are put together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_base::{Event, EventKind, EventSink as _};
use sampan_images::Images;
use sampan_net::Net;
use sampan_oci::Digest;
use sampan_sandbox::{SandboxConfig, Sandboxes};
use sampan_store::Store;

use crate::clock;
use crate::error::EngineError;
use crate::events::EventBus;
use crate::exec::Execs;
use crate::health::Schedule;
use crate::rows::Rows;
use crate::subscription::Subscription;
use crate::table::{Container, Table};

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Sockets and other things of this boot.
    pub exec_root: PathBuf,
    /// Parent of all cgroups.
    pub cgroup_parent: String,
    /// Whether containers outlive the daemon.
    pub live_restore: bool,
    /// Give every container a small init unless it says otherwise.
    pub init: bool,
    /// Registries that are asked before Docker Hub: URLs.
    pub registry_mirrors: Vec<String>,
    /// Registries that need no TLS: names with ports, or networks as CIDR.
    pub insecure_registries: Vec<String>,
}

/// Containers, networks, volumes.
pub struct Engine {
    pub(crate) config: EngineConfig,
    store: Arc<Store>,
    images: Arc<Images>,
    sandboxes: Arc<Sandboxes>,
    net: Option<Arc<Net>>,
    events: Arc<EventBus>,
    table: Table,
    execs: Execs,
    health: Arc<Schedule>,
    volumes: Mutex<()>,
    shutting_down: AtomicBool,
    started_at: i64,
    pub(crate) id: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Puts the parts together and finds what an earlier daemon left: containers that live on are taken over, ended ones get
    /// their exit code, restart policies are followed.
    ///
    /// # Errors
    /// A failing disk, kernel or database.
    pub fn open(
        config: EngineConfig,
        store: Arc<Store>,
        images: Arc<Images>,
        net: Option<Arc<Net>>,
        events: Arc<EventBus>,
    ) -> Result<Arc<Self>, EngineError> {
        let sandbox = SandboxConfig {
            data_root: store.root().to_owned(),
            exec_root: config.exec_root.clone(),
            cgroup_parent: config.cgroup_parent.clone(),
        };
        let (sandboxes, ends) = Sandboxes::open(sandbox, net.clone()).map_err(EngineError::io("make the runtime ready"))?;
        let id = identity(&store)?;
        let engine = Arc::new(Self {
            config,
            store,
            images,
            sandboxes: Arc::new(sandboxes),
            net,
            events,
            table: Table::default(),
            execs: Execs::default(),
            health: Arc::default(),
            volumes: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            started_at: clock::now_nanos(),
            id,
        });
        engine.health.serve(&engine);
        engine.recover(ends)?;
        Ok(engine)
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// Where processes run; the builder's steps run there too.
    #[must_use]
    pub fn shared_sandboxes(&self) -> Arc<Sandboxes> {
        Arc::clone(&self.sandboxes)
    }

    pub(crate) fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    pub(crate) fn events(&self) -> &EventBus {
        &self.events
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn execs(&self) -> &Execs {
        &self.execs
    }

    pub(crate) fn health(&self) -> &Arc<Schedule> {
        &self.health
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows(&self.store)
    }

    pub(crate) fn data_root(&self) -> &Path {
        self.store.root()
    }

    pub(crate) fn volumes_lock(&self) -> MutexGuard<'_, ()> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started_at(&self) -> i64 {
        self.started_at
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
    }

    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).stack_size(1 << 20).spawn(work) {
            tracing::error!(%error, "cannot start a thread");
        }
    }

    pub(crate) fn discard(&self, path: &Path) -> Result<(), EngineError> {
        self.store.discard(path).map_err(EngineError::io(format!("remove {}", path.display())))
    }

    pub(crate) fn staging(&self) -> Result<PathBuf, EngineError> {
        self.store.staging().map_err(EngineError::io("make a staging folder"))
    }

    /// Subnet, gateway, name and packet size of the default bridge.
    pub(crate) fn default_bridge(&self) -> (String, String, String, u32) {
        self.net.as_ref().map_or_else(Default::default, |net| {
            let (subnet, gateway, name, mtu) = net.default_bridge();
            (subnet.to_string(), gateway.to_string(), name.to_owned(), mtu)
        })
    }

    pub(crate) fn firewall_warnings(&self) -> Vec<String> {
        self.net.as_ref().map(|net| net.warnings()).unwrap_or_default()
    }

    /// A predefined network's id: the same for ever in this data root.
    pub(crate) fn network_id(&self, name: &str) -> String {
        Digest::sha256_of(format!("{}/{name}", self.id).as_bytes()).hex().to_owned()
    }

    pub(crate) fn container_event(&self, container: &Arc<Container>, action: &str, more: &[(&str, &str)]) {
        let facts = container.facts();
        let mut attributes = vec![("image".to_owned(), facts.spec.config.image.clone()), ("name".to_owned(), facts.spec.name.clone())];
        attributes.extend(facts.spec.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let id = facts.spec.id.clone();
        drop(facts);
        self.events.publish(Event { kind: EventKind::Container, action: action.into(), id, attributes, time_nano: 0 });
    }

    /// The recent events, oldest first, and those to come.
    #[must_use]
    pub fn subscribe_events(&self) -> (Vec<Event>, Subscription<Event>) {
        self.events.subscribe()
    }

    /// Prepares for the end of the daemon: with `stop_containers` every container is stopped first.
    pub fn shutdown(&self, stop_containers: bool) {
        self.shutting_down.store(true, Ordering::SeqCst);
        if !stop_containers {
            return;
        }
        let running: Vec<Arc<Container>> =
            self.table.all().into_iter().filter(|container| container.facts().state.status.is_running()).collect();
        std::thread::scope(|scope| {
            for container in &running {
                scope.spawn(|| {
                    let _operation = container.begin();
                    if let Err(error) = self.stop_locked(container, None, None) {
                        tracing::warn!(error = %crate::chain(&error), "cannot stop a container");
                    }
                });
            }
        });
        self.sandboxes.remove_parent();
        if let Some(net) = &self.net
            && let Err(error) = net.remove_all()
        {
            tracing::warn!(error = %crate::chain(&error), "cannot remove the network");
        }
    }
}

/// The id of this data root.
fn identity(store: &Store) -> Result<String, EngineError> {
    let fail = |error: sampan_store::DbError| EngineError::room(&error);
    if let Some(id) = store.fact("id").map_err(fail)? {
        return Ok(id);
    }
    let hex = crate::names::new_id();
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-");
    store.set_fact("id", &id).map_err(fail)?;
    Ok(id)
}
