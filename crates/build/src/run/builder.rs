//! The builder: a request and a context become an image.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sampan_base::Cancel;
use sampan_images::Images;
use sampan_oci::DiffId;
use sampan_sandbox::Sandboxes;
use sampan_store::Store;
use sampan_transfer::Client;

use super::bases::Local;
use super::build::Run;
use super::context::OpenedContext;
use super::error::BuildError;
use super::event::{Event, Watcher};
use super::flight::Flights;
use super::key::hash;
use super::offers::Offers;
use super::request::{BuildRequest, Built};
use super::schedule;
use crate::dockerfile;
use crate::files::Mirror;
use crate::plan::{self, Graph, Op};

/// Steps that run at the same time.
const THREADS: usize = 4;

/// Builds images.
pub struct Builder {
    pub(crate) store: Arc<Store>,
    pub(crate) images: Arc<Images>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) folder: PathBuf,
    pub(crate) mirror: Arc<Mirror>,
    /// Fetches what builds name by address.
    pub(crate) client: Option<Client>,
    /// Keys that are being made.
    pub(crate) flights: Flights,
    /// When the running builds began.
    pub(crate) active: Mutex<Vec<i64>>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builder").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// 64 random hex digits.
pub(crate) fn random_id() -> Result<String, BuildError> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| BuildError::io("name a step")(error.into()))?;
    Ok(hex::encode(bytes))
}

pub(crate) fn seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Builder {
    /// Works on a data root.
    ///
    /// # Errors
    /// A failing disk.
    pub fn open(store: Arc<Store>, images: Arc<Images>, sandboxes: Arc<Sandboxes>) -> std::io::Result<Self> {
        let folder = store.root().join("build");
        let mirror = Arc::new(Mirror::open(&folder.join("mirror"))?);
        for place in ["proc", "sys", "dev/pts", "dev/shm", "etc"] {
            std::fs::create_dir_all(folder.join("places").join(place))?;
        }
        for file in ["hosts", "resolv.conf"] {
            std::fs::write(folder.join("places/etc").join(file), "")?;
        }
        std::fs::create_dir_all(folder.join("caches"))?;
        drop(std::fs::remove_dir_all(folder.join("checkouts")));
        let (flights, active) = Default::default();
        Ok(Self { store, images, sandboxes, folder, mirror, client: None, flights, active })
    }

    /// Fetches what builds name by address with this client; without one such builds fail.
    #[must_use]
    pub fn with_client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// Below all layers of a command's root: what is mounted at must be there, and is no change of the command.
    pub(crate) fn places(&self) -> PathBuf {
        self.folder.join("places")
    }

    /// The folders of layers, top first.
    pub(crate) fn lowers(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, BuildError> {
        let mut lowers = Vec::new();
        for layer in layers.iter().rev() {
            let row = self.store.layer(layer).map_err(|error| BuildError::room("", &error))?;
            let row = row.ok_or_else(|| BuildError::invalid(format!("layer {layer} is missing")))?;
            lowers.push(self.store.layer_folder(&row).join("fs"));
        }
        if lowers.is_empty() {
            let empty = self.folder.join("empty");
            std::fs::create_dir_all(&empty).map_err(BuildError::io("make an empty root"))?;
            lowers.push(empty);
        }
        Ok(lowers)
    }

    /// The place of a cache mount.
    pub(crate) fn cache_folder(&self, id: &str, (mode, uid, gid): (u32, u32, u32)) -> Result<PathBuf, BuildError> {
        use std::os::unix::fs::PermissionsExt as _;
        let place = self.folder.join("caches").join(hash(id));
        let make = || -> std::io::Result<()> {
            match std::fs::create_dir(&place) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
                other => other?,
            }
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode))?;
            std::os::unix::fs::chown(&place, Some(uid), Some(gid))
        };
        make().map_err(BuildError::io("make the place of a cache"))?;
        Ok(place)
    }

    /// Builds an image.
    ///
    /// # Errors
    /// [`BuildError`]; steps that were done stay remembered.
    pub fn build(&self, request: BuildRequest<'_>, watch: Watcher<'_>, cancel: &Cancel) -> Result<Built, BuildError> {
        let began = seconds();
        self.active.lock().unwrap_or_else(PoisonError::into_inner).push(began);
        let owner = random_id();
        let built = owner.and_then(|owner| {
            let built = self.build_held(request, watch, cancel, &owner);
            if let Err(error) = self.store.let_layers_go(&owner) {
                tracing::warn!(%error, "cannot let the layers of a build go");
            }
            built
        });
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = active.iter().position(|one| *one == began) {
            active.swap_remove(at);
        }
        built
    }

    fn build_held(&self, request: BuildRequest<'_>, watch: Watcher<'_>, cancel: &Cancel, owner: &str) -> Result<Built, BuildError> {
        let BuildRequest { plan: mut wish, dockerfile: name, context, names, resources, pull_always, cache_from, pull } = request;
        let OpenedContext { tree, host, text, checkout: _checkout } = self.open_context(context, &name, &mut wish, cancel)?;
        let excerpt = |lines| dockerfile::excerpt(&name, text.as_ref(), lines);
        let parsed = dockerfile::parse(&text).map_err(|error| BuildError::reading(&error, excerpt))?;
        let bases = Local { images: &self.images, pull, pull_always, seen: Mutex::default(), cancel };
        let graph = plan::plan(&parsed, &wish, &bases).map_err(|error| BuildError::planning(&error, excerpt))?;
        watch(Event::Planned(&graph));
        let bases: Vec<DiffId> = self.base_layers(&graph)?;
        self.store.hold_layers(owner, &bases).map_err(|error| BuildError::room("", &error))?;
        let offers = Offers::load(&self.images, &cache_from);
        self.store.hold_layers(owner, &offers.layers()).map_err(|error| BuildError::room("", &error))?;
        let run = Run::new(self, &graph, tree, resources, watch, cancel, names.first()).with_offers(offers);
        let needs = run.needs();
        let stopper = || cancel.cancel();
        let links = schedule::run(
            &needs,
            THREADS,
            &|step, get| run.step(step, get).map_err(|error| error.at(step, || excerpt(Some(graph.steps[step].lines)))),
            &stopper,
        );
        if let Some(host) = host
            && let Err(error) = host.save()
        {
            tracing::warn!(%error, "cannot keep what is known of a context");
        }
        let links = links?;
        // A stage that a named context replaces has no steps.
        let replaced = || graph.result.base.as_ref().map(|base| run.image_link(&base.id)).transpose();
        let last = links.into_iter().next_back().flatten().map_or_else(replaced, |last| Ok(Some(last)))?;
        let last = last.ok_or_else(|| BuildError::invalid("No image was generated. Is your Dockerfile empty?"))?;
        let image = run.result(&last)?;
        cancel.check().map_err(|_| BuildError::Cancelled)?;
        self.images.finish_build(&image, &names).map_err(|error| BuildError::room("", &error))?;
        Ok(Built { image })
    }

    fn base_layers(&self, graph: &Graph) -> Result<Vec<DiffId>, BuildError> {
        let mut layers = Vec::new();
        for op in &graph.ops {
            if let Op::Image { image, .. } = op {
                let found = self.images.resolve(&image.id.to_string()).map_err(|error| BuildError::room("", &error))?;
                layers.extend(found.layers().iter().cloned());
            }
        }
        Ok(layers)
    }
}
