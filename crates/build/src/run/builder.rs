//! The builder: a request and a context become an image.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use sampan_archive::Decompress;
use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;
use sampan_images::Images;
use sampan_oci::{DiffId, ImageConfig, ImageId, Platform, Reference};
use sampan_sandbox::{Limits, Sandboxes};
use sampan_store::{BuildRow, Store};
use sampan_transfer::Client;

use super::chain::Link;
use super::download::{Downloads, RemoteContext};
use super::error::BuildError;
use super::event::{Event, Watcher};
use super::key::{Parts, hash};
use super::schedule::{self, Needs};
use crate::dockerfile;
use crate::files::{HostTree, MemoryTree, Mirror, Source, Target, read_tar};
use crate::plan::{self, Base, BaseError, BaseImage, Bases, Graph, Op, OpId, Step};

/// Longest Dockerfile.
pub(crate) const LONGEST: u64 = 64 << 20;
/// Steps that run at the same time.
const THREADS: usize = 4;

/// What commands of a build may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Of memory and processors.
    pub limits: Limits,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: i64,
    /// `RLIMIT_*` number, soft, hard.
    pub ulimits: Vec<(u32, u64, u64)>,
    /// Further lines of /etc/hosts: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Host name; empty: BuildKit's.
    pub hostname: String,
}

/// Fetches an image that is not here: reference, platform, whether an image that is here is to be looked at again.
pub type Pull<'a> = &'a dyn Fn(&Reference, &Platform) -> Result<(), BaseError>;

/// Where the files of a build come from.
pub enum ContextInput<'a> {
    /// A tar stream, compressed or not.
    Tar(Box<dyn Read + Send + 'a>),
    /// An open folder of this machine.
    Folder(OwnedFd),
    /// The address of an archive or of a Dockerfile.
    Remote(String),
}

impl std::fmt::Debug for ContextInput<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Tar(_) => "Tar",
            Self::Folder(_) => "Folder",
            Self::Remote(_) => "Remote",
        })
    }
}

/// A build.
pub struct BuildRequest<'a> {
    /// What the Dockerfile is planned with.
    pub plan: plan::Request,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The context.
    pub context: ContextInput<'a>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// What commands may use.
    pub resources: Resources,
    /// Whether base images are fetched although they are here.
    pub pull_always: bool,
    /// Images whose steps were offered. Their histories do not say what files were copied, so they prove nothing: a warning says
    /// that they are not used.
    pub cache_from: Vec<String>,
    /// How images are fetched.
    pub pull: Pull<'a>,
}

impl std::fmt::Debug for BuildRequest<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuildRequest").field("dockerfile", &self.dockerfile).finish_non_exhaustive()
    }
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageId,
}

/// A remembered result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Its key.
    pub id: String,
    /// The instruction.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// When it was made, as images write it.
    pub created: String,
    /// When it was last used, seconds since the epoch.
    pub used: i64,
    /// How often.
    pub uses: u64,
    /// Whether an image with a name needs it.
    pub shared: bool,
}

/// What a prune of the builder's memory takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Also what images with names need, and the places of cache mounts.
    pub all: bool,
    /// Only what was not used since then, seconds since the epoch.
    pub before: Option<i64>,
    /// How many bytes may stay.
    pub keep: u64,
}

/// Builds images.
pub struct Builder {
    store: Arc<Store>,
    pub(super) images: Arc<Images>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) folder: PathBuf,
    pub(crate) mirror: Arc<Mirror>,
    /// Fetches what builds name by address.
    pub(crate) client: Option<Client>,
    /// Keys that are being made.
    flying: Mutex<HashSet<String>>,
    landed: Condvar,
    /// When the running builds began.
    active: Mutex<Vec<i64>>,
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

fn seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// One build under way.
pub(crate) struct Run<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) graph: &'a Graph,
    pub(crate) context: Option<Arc<dyn Source>>,
    pub(crate) resources: Resources,
    pub(crate) watch: Watcher<'a>,
    pub(crate) cancel: Cancel,
    /// Which step makes an operation's result.
    pub(crate) makers: HashMap<OpId, usize>,
    pub(crate) downloads: Downloads,
    /// Which place of which Dockerfile each step is.
    places: Vec<String>,
    started: jiff::Timestamp,
}

type Get<'a> = &'a dyn Fn(usize) -> Option<Link>;

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
        let (flying, landed, active) = Default::default();
        Ok(Self { store, images, sandboxes, folder, mirror, client: None, flying, landed, active })
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
        let (tree, host, text) = self.open_context(context, &name, &mut wish, cancel)?;
        let excerpt = |lines| dockerfile::excerpt(&name, text.as_ref(), lines);
        let parsed = dockerfile::parse(&text).map_err(|error| BuildError::Dockerfile {
            text: error.to_string(),
            kind: sampan_base::Failure::kind(&error),
            excerpt: excerpt(error.lines),
        })?;
        let bases = Local { images: &self.images, pull, pull_always, seen: Mutex::default(), cancel };
        let graph = plan::plan(&parsed, &wish, &bases).map_err(|error| BuildError::Dockerfile {
            text: error.classic_message().to_owned(),
            kind: error.kind,
            excerpt: excerpt(error.lines),
        })?;
        watch(Event::Planned(&graph));
        if !cache_from.is_empty() {
            let list = cache_from.join(", ");
            watch(Event::Warning(format!("results of {list} (--cache-from) are not used: steps come from this engine's own cache only")));
        }
        let bases: Vec<DiffId> = self.base_layers(&graph)?;
        self.store.hold_layers(owner, &bases).map_err(|error| BuildError::room("", &error))?;
        let makers = graph.steps.iter().enumerate().filter_map(|(number, step)| Some((step.op?, number))).collect();
        let places = places(&graph, names.first());
        let run = Run {
            builder: self,
            graph: &graph,
            context: Some(tree),
            resources,
            watch,
            cancel: cancel.clone(),
            makers,
            downloads: Downloads::default(),
            places,
            started: jiff::Timestamp::now(),
        };
        let needs = run.needs();
        let stopper = || cancel.cancel();
        let links = schedule::run(&needs, THREADS, &|step, get| run.step(step, get), &stopper);
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

    /// Opens a context and reads its Dockerfile.
    pub(super) fn open_context(
        &self,
        context: ContextInput<'_>,
        name: &str,
        wish: &mut plan::Request,
        cancel: &Cancel,
    ) -> Result<OpenedContext, BuildError> {
        match context {
            ContextInput::Remote(address) => match self.fetch_context(&address, cancel)? {
                RemoteContext::Tar(stream) => self.open_context(ContextInput::Tar(stream), name, wish, cancel),
                RemoteContext::Dockerfile(text) => Ok((Arc::new(MemoryTree::empty(Arc::clone(&self.mirror))), None, text)),
            },
            ContextInput::Tar(stream) => {
                let stream = Decompress::new(stream).map_err(|error| BuildError::context(&error))?;
                let mut tree = read_tar(stream, Arc::clone(&self.mirror), cancel)?;
                let text = read_dockerfile(&tree, name)?;
                if let Some(ignore) = read_ignore(&tree, name, wish)? {
                    // The client left the others out, and sends these two all the same.
                    tree.remove_matching(&ignore, &[".dockerignore", name]);
                }
                Ok((Arc::new(tree), None, text))
            }
            ContextInput::Folder(folder) => {
                let fail = || BuildError::io("open the build context");
                let indexes = self.folder.join("indexes");
                std::fs::create_dir_all(&indexes).map_err(fail())?;
                let tree = HostTree::open(folder, &indexes).map_err(fail())?;
                let text = read_dockerfile(&tree, name)?;
                let ignore = read_ignore(&tree, name, wish)?.unwrap_or_default();
                let tree = Arc::new(tree.with_ignore(ignore));
                Ok((Arc::clone(&tree) as _, Some(tree), text))
            }
        }
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

    /// What is remembered.
    ///
    /// # Errors
    /// A failing database.
    pub fn cache(&self) -> Result<Vec<CacheItem>, BuildError> {
        let rows = self.store.build_results().map_err(|error| BuildError::room("", &error))?;
        let named = self.needed_images()?;
        let mut seen = HashSet::new();
        Ok(rows
            .into_iter()
            .filter(|row| seen.insert(row.image.clone()))
            .map(|row| CacheItem {
                id: row.key.chars().take(25).collect(),
                description: row.text,
                size: row.size,
                created: row.created,
                used: row.used,
                uses: row.uses,
                shared: named.contains(&row.image),
            })
            .collect())
    }

    /// Images with names and those that they were built on.
    fn needed_images(&self) -> Result<HashSet<String>, BuildError> {
        let all = self.images.all().map_err(|error| BuildError::room("", &error))?;
        let parents: HashMap<String, Option<String>> = all.iter().map(|image| (image.id.to_string(), image.parent.clone())).collect();
        let mut needed = HashSet::new();
        for image in all.iter().filter(|image| !image.references.is_empty()) {
            let mut next = Some(image.id.to_string());
            while let Some(id) = next.filter(|id| needed.insert(id.clone())) {
                next = parents.get(&id).cloned().flatten();
            }
        }
        Ok(needed)
    }

    /// Forgets results, the longest unused ones first, and removes what only they held. `users` tells the containers of an image.
    ///
    /// # Errors
    /// A failing disk or database.
    pub fn prune(&self, request: PruneRequest, users: &dyn Fn(&str) -> Vec<(String, bool)>) -> Result<(Vec<String>, u64), BuildError> {
        let room = |error: sampan_store::DbError| BuildError::room("", &error);
        let first = self.active.lock().unwrap_or_else(PoisonError::into_inner).iter().min().copied();
        let needed = if request.all { HashSet::new() } else { self.needed_images()? };
        let mut rows = self.store.build_results().map_err(room)?;
        rows.sort_by_key(|row| row.used);
        let mut left: u64 = rows.iter().map(|row| row.size).sum();
        let mut going: Vec<BuildRow> = Vec::new();
        for row in rows {
            let old = request.before.is_none_or(|before| row.used < before) && first.is_none_or(|first| row.used < first);
            if old && !needed.contains(&row.image) && (request.keep == 0 || left > request.keep) {
                left -= row.size.min(left);
                going.push(row);
            }
        }
        let keys: Vec<String> = going.iter().map(|row| row.key.clone()).collect();
        self.store.forget_build_results(&keys).map_err(room)?;
        let images: Vec<String> = going.into_iter().map(|row| row.image).collect();
        let mut space = self.images.remove_steps(&images, users).map_err(|error| BuildError::room("", &error))?;
        if first.is_none() && request.before.is_none() && request.keep == 0 {
            space += self.mirror.size();
            self.mirror.clear().map_err(BuildError::io("clear the mirror of contexts"))?;
            self.forget_downloads()?;
            if request.all {
                self.clear_caches()?;
            }
        }
        Ok((keys.iter().map(|key| key.chars().take(25).collect()).collect(), space))
    }

    fn forget_downloads(&self) -> Result<(), BuildError> {
        match std::fs::remove_dir_all(self.folder.join("downloads")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BuildError::io("forget downloads")(error)),
            _ => Ok(()),
        }
    }

    fn clear_caches(&self) -> Result<(), BuildError> {
        let fail = || BuildError::io("remove cache mounts");
        for entry in std::fs::read_dir(self.folder.join("caches")).map_err(fail())?.flatten() {
            self.store.discard(&entry.path()).map_err(fail())?;
        }
        Ok(())
    }
}

/// The Dockerfile's text.
fn read_dockerfile(tree: &dyn Source, name: &str) -> Result<Vec<u8>, BuildError> {
    let read = |name: &str| tree.read(name, LONGEST).map_err(BuildError::io("read the Dockerfile"));
    let missing = || BuildError::invalid(format!("Cannot locate specified Dockerfile: {name}"));
    let found = match read(name)? {
        None if name == "Dockerfile" => read("dockerfile")?,
        other => other,
    };
    let text = found.ok_or_else(missing)?;
    if text.is_empty() {
        return Err(BuildError::invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    Ok(text)
}

/// The patterns of `.dockerignore`; the Dockerfile's own file of that name wins.
fn read_ignore(tree: &dyn Source, name: &str, wish: &mut plan::Request) -> Result<Option<Ignore>, BuildError> {
    let read = |path: &str| tree.read(path, LONGEST).map_err(BuildError::io("read .dockerignore"));
    let own = read(&format!("{name}.dockerignore"))?;
    let Some(text) = (if own.is_some() { own } else { read(".dockerignore")? }) else { return Ok(None) };
    let patterns = sampan_gotext::ignore::read(&String::from_utf8_lossy(&text));
    let ignore = Ignore::new(&patterns).map_err(|error| BuildError::invalid(error.to_string()))?;
    wish.ignore_patterns = patterns;
    Ok(Some(ignore))
}

/// Names the place of each step: instructions are counted by their keyword, so that a new one in between moves no other.
fn places(graph: &Graph, name: Option<&Reference>) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let name = name.map(Reference::familiar_name).unwrap_or_default();
    let one = |step: &Step| {
        let keyword = step.text.split_whitespace().next().unwrap_or_default();
        let place = format!("{name}\n{}\n{keyword}", step.stage);
        let count = counts.entry(place.clone()).or_default();
        *count += 1;
        hash(&format!("{place}\n{count}"))
    };
    graph.steps.iter().map(one).collect()
}

/// Images that are here, or are fetched.
pub(super) struct Local<'a> {
    pub(super) images: &'a Images,
    pub(super) pull: Pull<'a>,
    pub(super) pull_always: bool,
    pub(super) seen: Mutex<HashSet<String>>,
    pub(super) cancel: &'a Cancel,
}

impl Bases for Local<'_> {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Base, BaseError> {
        let wrong = |error: sampan_images::ImageError| BaseError { kind: sampan_base::Failure::kind(&error), message: error.to_string() };
        let name = reference.familiar();
        let first = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let here = || self.images.resolve_for(&name, Some(platform));
        let mut found = here();
        if self.cancel.is_cancelled() {
            return Err(BaseError { kind: sampan_base::ErrorKind::Cancelled, message: "operation cancelled".into() });
        }
        if (self.pull_always && first) || found.is_err() {
            (self.pull)(reference, platform)?;
            found = here();
        }
        let image = found.map_err(wrong)?;
        let base = BaseImage { reference: reference.clone(), digest: None, id: image.id };
        Ok(Base { image: base, config: image.config })
    }
}

/// A context, the same as a folder of the host where it is one, and its Dockerfile.
pub(super) type OpenedContext = (Arc<dyn Source>, Option<Arc<HostTree>>, Vec<u8>);

impl Run<'_> {
    pub(crate) fn now(&self) -> (i64, u32) {
        (self.started.as_second(), u32::try_from(self.started.subsec_nanosecond()).unwrap_or(0))
    }

    /// What every key has.
    pub(crate) fn parts(&self, link: &Link) -> Parts {
        Parts::default()
            .with("base", link.tree.clone())
            .with("platform", format!("{}/{}/{}", link.config.os, link.config.architecture, link.config.variant))
    }

    pub(crate) fn image_link(&self, id: &ImageId) -> Result<Link, BuildError> {
        let bytes = self.builder.store.image_config(&id.to_string()).map_err(|error| BuildError::room("", &error))?;
        let bytes = bytes.ok_or_else(|| BuildError::invalid(format!("No such image: {id}")))?;
        let config = ImageConfig::parse(&bytes).map_err(|error| BuildError::invalid(error.to_string()))?;
        Ok(Link::image(id.clone(), config))
    }

    /// The last step of the stage that a stage begins with, if it begins with one.
    fn base_step(&self, number: usize) -> Option<usize> {
        let step = &self.graph.steps[number];
        let stage = self.graph.stages.iter().find(|stage| stage.steps.contains(&number))?;
        if step.root.is_some_and(|root| matches!(self.graph.ops.get(root.0), Some(Op::Image { .. }))) {
            return None;
        }
        let name = stage.base_name.to_lowercase();
        let named =
            self.graph.stages.iter().rev().filter(|other| other.index < stage.index).find(|other| other.name == name && !name.is_empty());
        if let Some(other) = named {
            return other.steps.end.checked_sub(1);
        }
        step.root.and_then(|root| self.makers.get(&root).copied())
    }

    /// What each step waits for.
    fn needs(&self) -> Needs {
        let of = |number: usize| {
            let step = &self.graph.steps[number];
            let mut needs: Vec<usize> = Vec::new();
            if step.from {
                needs.extend(self.base_step(number))
            } else {
                needs.extend(number.checked_sub(1))
            }
            let mut inputs: Vec<Option<OpId>> = Vec::new();
            match step.op.and_then(|op| self.graph.ops.get(op.0)) {
                Some(Op::File(file)) => inputs.extend(super::file::copies(&file.actions).map(|copy| copy.from)),
                Some(Op::Exec(exec)) => inputs.extend(exec.mounts.iter().map(|mount| mount.from)),
                _ => {}
            }
            needs.extend(inputs.into_iter().flatten().filter_map(|op| self.makers.get(&op).copied()));
            needs
        };
        Needs((0..self.graph.steps.len()).map(of).collect())
    }

    /// Carries one step out.
    fn step(&self, number: usize, get: Get<'_>) -> Result<Link, BuildError> {
        self.cancel.check().map_err(|_| BuildError::Cancelled)?;
        let step = &self.graph.steps[number];
        (self.watch)(Event::Started(number));
        if step.from {
            let link = match (self.base_step(number), step.root.and_then(|root| self.graph.ops.get(root.0))) {
                (Some(other), _) => get(other).ok_or_else(|| BuildError::invalid("a stage that was not built"))?,
                (None, Some(Op::Image { image, .. })) => self.image_link(&image.id)?,
                (None, _) => Link::scratch(Arc::clone(&step.config_after)),
            };
            self.done(number, &link, false, String::new());
            return Ok(link);
        }
        let link = number.checked_sub(1).and_then(get).ok_or_else(|| BuildError::invalid("a step without a stage"))?;
        let op = step.op.and_then(|op| self.graph.ops.get(op.0));
        let (parts, loose) = match op {
            None => (Parts::default(), false),
            Some(Op::File(file)) => self.file_parts(file, &link, get)?,
            Some(Op::Exec(exec)) => (self.exec_parts(exec, &link, get)?, false),
            Some(_) => return Err(BuildError::unsupported("this operation as a step")),
        };
        let config = serde_json::to_string(&step.config_after.config).unwrap_or_default();
        let history = serde_json::to_string(&step.history).unwrap_or_default();
        let whole = Parts::default()
            .with("base", link.image.as_ref().map_or_else(|| "scratch".to_owned(), ToString::to_string))
            .with("instruction", hash(&history))
            .with("configuration", hash(&config))
            .with("operation", if op.is_some() { parts.key() } else { String::new() });
        let (whole_key, operation) = (whole.key(), if op.is_some() { parts } else { whole });
        let _flight = self.builder.take_off(&whole_key, &self.cancel)?;
        if !step.no_cache
            && let Some(row) = self.find(&whole_key)?
        {
            return self.reuse(number, &link, &row);
        }
        let work = Work { number, step, link: &link, op, parts: operation, loose, key: whole_key };
        self.make(&work, get)
    }

    fn find(&self, key: &str) -> Result<Option<BuildRow>, BuildError> {
        self.builder.store.build_result(key).map_err(|error| BuildError::room("", &error))
    }

    fn done(&self, step: usize, link: &Link, cached: bool, reason: String) {
        (self.watch)(Event::Done { step, image: link.image.clone(), cached, reason });
    }

    /// The image of an earlier build.
    fn reuse(&self, number: usize, link: &Link, row: &BuildRow) -> Result<Link, BuildError> {
        let id: ImageId = row.image.parse().map_err(|_| BuildError::invalid("a remembered image without a digest"))?;
        let mut next = self.image_link(&id)?;
        next.tree =
            if row.layer.is_empty() { link.tree.clone() } else { link.clone().grown(id, ImageConfig::clone(&next.config), &row.tree).tree };
        self.builder.store.use_build_results(std::slice::from_ref(&row.key)).map_err(|error| BuildError::room("", &error))?;
        self.done(number, &next, true, format!("unchanged since {}", row.created));
        Ok(next)
    }

    /// Makes a step's result, from an earlier result of the same operation where there is one.
    fn make(&self, work: &Work<'_>, get: Get<'_>) -> Result<Link, BuildError> {
        let room = |error: sampan_store::DbError| BuildError::room("", &error);
        let created = jiff::Timestamp::now().to_string();
        let mut keys = vec![work.parts.key()];
        if let (true, Some(Op::File(file))) = (work.loose, work.op) {
            keys.push(self.content_parts(file, work.link, get)?.key());
        }
        let mut known = None;
        if work.op.is_some() && !work.step.no_cache {
            for key in &keys {
                known = known.or(self.find(key)?.filter(|row| !row.layer.is_empty()));
            }
        }
        let reason = self.reason(work)?;
        let (image, layer, tree, size, created, cached) = match (&known, work.op) {
            (Some(row), _) => {
                let layer: DiffId = row.layer.parse().map_err(|_| BuildError::invalid("a remembered layer without a digest"))?;
                let config = work.link.configured(work.step, Some(&layer), &row.created);
                let image = self.builder.images.create(&config, work.link.image.as_ref()).map_err(|error| BuildError::room("", &error))?;
                (image, row.layer.clone(), row.tree.clone(), row.size, row.created.clone(), true)
            }
            (None, None) => {
                let config = work.link.configured(work.step, None, &created);
                let image = self.builder.images.create(&config, work.link.image.as_ref()).map_err(|error| BuildError::room("", &error))?;
                (image, String::new(), String::new(), 0, created, false)
            }
            (None, Some(op)) => {
                let built = self.execute(work, op, &created, get)?;
                (built.image, built.diff_id.to_string(), built.tree, built.content, created, false)
            }
        };
        let row = BuildRow {
            key: work.key.clone(),
            place: String::new(),
            text: work.step.text.clone(),
            parts: String::new(),
            image: image.to_string(),
            tree: tree.clone(),
            layer: layer.clone(),
            size,
            created,
            used: seconds(),
            uses: u64::from(cached),
            result: false,
        };
        let mut rows = vec![row.clone()];
        for (number, key) in keys.into_iter().enumerate() {
            let place = if number == 0 { self.places[work.number].clone() } else { String::new() };
            // A configuration's own key is the step's.
            if work.op.is_some() {
                rows.push(BuildRow { key, place, parts: work.parts.print(), size: 0, ..row.clone() });
            } else {
                rows[0] = BuildRow { place, parts: work.parts.print(), ..row.clone() };
            }
        }
        self.builder.store.put_build_results(&rows).map_err(room)?;
        let mut link = self.image_link(&image)?;
        link.tree = if layer.is_empty() {
            work.link.tree.clone()
        } else {
            work.link.clone().grown(image, ImageConfig::clone(&link.config), &tree).tree
        };
        self.done(work.number, &link, cached, if cached { "the same operation was done before".into() } else { reason });
        Ok(link)
    }

    /// Why a step has to run.
    fn reason(&self, work: &Work<'_>) -> Result<String, BuildError> {
        if work.step.no_cache {
            return Ok("earlier results are not to be used".into());
        }
        let earlier = self.builder.store.build_place(&self.places[work.number]).map_err(|error| BuildError::room("", &error))?;
        Ok(earlier.map_or_else(
            || "no earlier result is known".to_owned(),
            |row| match work.parts.changes(&row.parts) {
                changes if changes.is_empty() => "its earlier result is gone".to_owned(),
                changes => changes,
            },
        ))
    }

    /// Does a step's work in a fresh folder and publishes what changed.
    fn execute(&self, work: &Work<'_>, op: &Op, created: &str, get: Get<'_>) -> Result<sampan_images::BuiltLayer, BuildError> {
        let store = &self.builder.store;
        let staging = store.staging().map_err(BuildError::io("make a staging folder"))?;
        let made = self.execute_in(&staging, work, op, created, get);
        if let Err(error) = store.discard(&staging) {
            tracing::warn!(%error, "cannot remove a staging folder");
        }
        made
    }

    fn execute_in(
        &self,
        staging: &Path,
        work: &Work<'_>,
        op: &Op,
        created: &str,
        get: Get<'_>,
    ) -> Result<sampan_images::BuiltLayer, BuildError> {
        let fail = || BuildError::io("make the folder of a step");
        let (folder, layer) = (staging.join("run"), staging.join("layer"));
        for path in [folder.join("upper"), folder.join("work"), layer.clone()] {
            std::fs::create_dir_all(path).map_err(fail())?;
        }
        match op {
            Op::Exec(exec) => self.run_exec(work.number, exec, work.link, &folder, get)?,
            Op::File(file) => {
                let lowers = self.builder.lowers(&work.link.layers)?;
                let root = self.builder.sandboxes.mount_root(&lowers, Some(&folder)).map_err(BuildError::io("mount the root of a step"))?;
                self.apply_file(file, &Target::new(root), get)?;
                let live = self.context.as_ref().is_some_and(|context| context.is_live());
                if live && self.file_parts(file, work.link, get)?.0 != work.parts {
                    return Err(BuildError::invalid("the build context changed while it was read: build again"));
                }
            }
            _ => return Err(BuildError::unsupported("this operation as a step")),
        }
        std::fs::rename(folder.join("upper"), layer.join("fs")).map_err(fail())?;
        let complete = |diff_id: &DiffId| work.link.configured(work.step, Some(diff_id), created);
        self.builder
            .images
            .publish_upper(&layer, work.link.image.as_ref(), complete, &self.cancel)
            .map_err(|error| BuildError::room("", &error))
    }

    /// The image of the whole build: the last step's, with what the request adds.
    fn result(&self, last: &Link) -> Result<ImageId, BuildError> {
        let wanted = &self.graph.result.config;
        let same = last.config.config == wanted.config && last.config.architecture == wanted.architecture && last.config.os == wanted.os;
        if let (true, Some(image)) = (same, &last.image) {
            return Ok(image.clone());
        }
        let mut config = ImageConfig::clone(wanted);
        config.history.clone_from(&last.config.history);
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids.clone_from(&last.layers);
        config.created.clone_from(&last.config.created);
        if last.image.is_none() {
            config.history.clear();
        }
        self.builder.images.create(&config, last.image.as_ref()).map_err(|error| BuildError::room("", &error))
    }
}

/// A step to be made.
struct Work<'a> {
    number: usize,
    step: &'a Step,
    link: &'a Link,
    op: Option<&'a Op>,
    parts: Parts,
    loose: bool,
    key: String,
}

/// A key that is being made; others wait for it.
pub(crate) struct Flight<'a> {
    builder: &'a Builder,
    key: String,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.builder.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.builder.landed.notify_all();
    }
}

impl Builder {
    /// Waits until nobody else makes a key.
    pub(crate) fn take_off(&self, key: &str, cancel: &Cancel) -> Result<Flight<'_>, BuildError> {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        while !flying.insert(key.to_owned()) {
            cancel.check().map_err(|_| BuildError::Cancelled)?;
            let pause = std::time::Duration::from_millis(100);
            flying = self.landed.wait_timeout(flying, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Flight { builder: self, key: key.to_owned() })
    }
}
