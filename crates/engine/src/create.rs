//! `create`: a validated wish becomes a row, a folder, its volumes. No process yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Engine;
use crate::clock;
use crate::conflicts;
use crate::error::EngineError;
use crate::merge;
use crate::model::{Config, ContainerSpec, EndpointRequest, HostConfig, MountPoint, State};
use crate::mounts::{self, Wish};
use crate::names;
use crate::table::Container;
use crate::volumes::VolumeRequest;

/// What `create` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateRequest {
    /// Empty or `None`: a random name.
    pub name: Option<String>,
    /// What runs; open fields are the image's.
    pub config: Config,
    /// How it runs.
    pub host: HostConfig,
    /// Wanted endpoints by network name.
    pub endpoints: BTreeMap<String, EndpointRequest>,
    /// Wanted platform (`linux/amd64`); empty: the host's.
    pub platform: String,
}

/// What `create` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container. Nothing runs yet.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a missing image, [`EngineError::Invalid`] for a wrong request,
    /// [`EngineError::Conflict`] for a taken name; on each nothing has changed.
    pub fn create(&self, request: CreateRequest) -> Result<Created, EngineError> {
        let CreateRequest { name, config, mut host, endpoints, platform } = request;
        let image = self.images().resolve(&config.image).map_err(|error| EngineError::room(&error))?;
        self.check_platform(&platform, &image, &config.image)?;
        conflicts::check(&config, &host, name.as_deref().unwrap_or_default())?;
        let image_config = crate::image_config::from_image(&image.config);
        let mut config = merge::merge(config, &image_config);
        merge::validate(&config, &host)?;
        if config.entrypoint.as_ref().is_none_or(Vec::is_empty) && config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::Invalid("no command specified".into()));
        }
        let id = names::new_id();
        settle(&mut config, &mut host, &id);
        self.resolve_joins(&mut host)?;
        let warnings = self.check_options(&config, &mut host)?;
        let inherited = self.inherited_mounts(&host)?;
        let wishes = mounts::collect(&config, &host, inherited)?;
        let name = self.take_name(name.as_deref().unwrap_or_default(), &id)?;
        let spec = ContainerSpec {
            id: id.clone(),
            name: name.clone(),
            created: clock::now_nanos(),
            image_id: image.id.to_string(),
            platform: "linux".into(),
            manifest_digest: String::new(),
            config,
            host,
            endpoints,
            mounts: Vec::new(),
        };
        match self.build(spec, wishes) {
            Ok(container) => {
                self.table().insert(&container);
                self.container_event(&container, "create", &[]);
                Ok(Created { id, warnings })
            }
            Err(error) => {
                self.table().release(&name, &id);
                // What was made so far goes again; its own failure must not hide the first one.
                if let Err(error) = self.discard(&self.container_folder(&id)) {
                    tracing::warn!(container = %id, error = %crate::chain(&error), "cannot remove the folder of a failed create");
                }
                Err(error)
            }
        }
    }

    /// Folder, volumes, row.
    fn build(&self, mut spec: ContainerSpec, wishes: Vec<Wish>) -> Result<std::sync::Arc<Container>, EngineError> {
        let folder = self.container_folder(&spec.id);
        for part in ["upper", "work"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(EngineError::io(format!("create directory {}", path.display())))?;
        }
        for wish in wishes {
            let point = self.settle_mount(wish)?;
            if point.kind == "volume" && point.copy_up {
                self.copy_up(&spec, &point)?;
            }
            spec.mounts.push(point);
        }
        self.make_working_directory(&spec, &folder)?;
        let state = State::default();
        self.rows().insert_container(&spec, &state)?;
        Ok(Container::new(spec, state))
    }

    fn make_working_directory(&self, spec: &ContainerSpec, folder: &Path) -> Result<(), EngineError> {
        let path = &spec.config.working_dir;
        if path.is_empty() {
            return Ok(());
        }
        self.sandboxes().make_working_directory(&self.lowers(spec)?, folder, path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotADirectory => EngineError::Invalid(format!("Cannot mkdir: {path} is not a directory")),
            _ => EngineError::io(format!("make the working directory {path}"))(error),
        })
    }

    /// Makes volumes and bind sources.
    fn settle_mount(&self, wish: Wish) -> Result<MountPoint, EngineError> {
        let mut point = wish.point;
        match point.kind.as_str() {
            "volume" => {
                let request =
                    VolumeRequest { name: point.name.clone(), driver: String::new(), options: wish.driver_options, labels: wish.labels };
                let known = self.rows().volume(&point.name)?.is_some();
                let volume = self.volume_make(&request, point.anonymous && !known)?;
                point.source = volume.mountpoint;
                Ok(point)
            }
            "bind" => {
                let source = Path::new(&point.source);
                if source.symlink_metadata().is_err() {
                    if wish.need_source {
                        let path = &point.source;
                        return Err(EngineError::Invalid(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {path}"
                        )));
                    }
                    if wish.make_source {
                        std::fs::create_dir_all(source)
                            .map_err(EngineError::io(format!("error while creating mount source path '{}'", source.display())))?;
                    }
                }
                Ok(point)
            }
            _ => Ok(point),
        }
    }

    /// The mounts of `--volumes-from`.
    fn inherited_mounts(&self, host: &HostConfig) -> Result<Vec<MountPoint>, EngineError> {
        let mut inherited = Vec::new();
        for line in &host.volumes_from {
            let (name, mode) = line.split_once(':').unwrap_or((line, "rw"));
            if !matches!(mode, "ro" | "rw" | "z" | "Z") {
                return Err(EngineError::Invalid(format!("invalid mode: {mode}")));
            }
            let container = self.named(name)?;
            let facts = container.facts();
            inherited.extend(facts.spec.mounts.iter().filter(|mount| mount.kind != "tmpfs").cloned().map(|mut mount| {
                mount.rw &= mode != "ro";
                mount.copy_up = false;
                mount
            }));
        }
        Ok(inherited)
    }

    /// A container that a request names in passing: that there is none makes the request wrong.
    fn named(&self, name: &str) -> Result<std::sync::Arc<Container>, EngineError> {
        self.table().find(name).map_err(|error| EngineError::Invalid(error.to_string()))
    }

    /// `container:NAME` modes are kept by id, so that a rename changes nothing.
    fn resolve_joins(&self, host: &mut HostConfig) -> Result<(), EngineError> {
        for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(name) = mode.strip_prefix("container:") {
                if name.is_empty() {
                    return Err(EngineError::Invalid(format!("invalid mode: {mode}")));
                }
                *mode = format!("container:{}", self.named(name)?.id());
            }
        }
        Ok(())
    }

    /// Reserves the wished name, or a random one.
    fn take_name(&self, wish: &str, id: &str) -> Result<String, EngineError> {
        let wish = wish.strip_prefix('/').unwrap_or(wish);
        if !wish.is_empty() {
            check_name(wish)?;
            return match self.table().reserve(wish, id) {
                Ok(()) => Ok(wish.to_owned()),
                Err(owner) => Err(name_conflict(wish, &owner)),
            };
        }
        for attempt in 0..10 {
            let name = names::random_name(attempt);
            if self.table().reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        self.table().reserve(&id[..12], id).map_err(|owner| name_conflict(&id[..12], &owner))?;
        Ok(id[..12].to_owned())
    }

    pub(crate) fn container_folder(&self, id: &str) -> PathBuf {
        self.data_root().join("containers").join(id)
    }
}

/// Refuses names that the rules do not allow.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    if names::is_valid(name) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// The text of a taken name.
pub(crate) fn name_conflict(name: &str, owner: &str) -> EngineError {
    EngineError::Conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to \
         be able to reuse that name."
    ))
}

/// Writes down the defaults that a stored container spells out.
fn settle(config: &mut Config, host: &mut HostConfig, id: &str) {
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".into();
    }
    if config.hostname.is_empty() && !host.network_mode.starts_with("container:") && host.uts_mode != "host" && host.network_mode != "host"
    {
        id[..12].clone_into(&mut config.hostname);
    }
    if host.log.driver.is_empty() {
        host.log.driver = "json-file".into();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".into();
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    if host.runtime.is_empty() {
        host.runtime = "runc".into();
    }
    let limits = &mut host.resources;
    if limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory.saturating_mul(2);
    }
    limits.pids_limit = limits.pids_limit.filter(|limit| *limit > 0);
}
