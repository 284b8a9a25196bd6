//! Volumes of the local driver: a row and a directory `volumes/NAME/_data`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sampan_base::{Event, EventKind, EventSink as _};

use crate::Engine;
use crate::clock;
use crate::error::EngineError;
use crate::model::VolumeView;
use crate::names;
use crate::prune::{PruneFilter, PruneReport};
use crate::table::Container;

/// What `volume create` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Empty: an anonymous volume with a random name.
    pub name: String,
    /// `local` or empty.
    pub driver: String,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// Makes a volume, or gives the one that has this name already.
    ///
    /// # Errors
    /// Invalid names, other drivers, a failing disk.
    pub fn volume_create(&self, request: &VolumeRequest) -> Result<VolumeView, EngineError> {
        self.volume_make(request, request.name.is_empty())
    }

    pub(crate) fn volume_make(&self, request: &VolumeRequest, anonymous: bool) -> Result<VolumeView, EngineError> {
        if !matches!(request.driver.as_str(), "" | "local") {
            let driver = &request.driver;
            let name = &request.name;
            return Err(EngineError::NotFound(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        if let Some(option) = request.options.keys().next() {
            return Err(EngineError::Unsupported(format!("not supported: volume option \"{option}\" (mounted volumes come later)")));
        }
        let name = if request.name.is_empty() { names::new_id() } else { request.name.clone() };
        if !names::is_valid(&name) {
            return Err(EngineError::Invalid(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
                 If you intended to pass a host directory, use absolute path"
            )));
        }
        let guard = self.volumes_lock();
        if let Some(found) = self.rows().volume(&name)? {
            return Ok(self.shown(found));
        }
        let mountpoint = self.volume_folder(&name).join("_data");
        std::fs::create_dir_all(&mountpoint).map_err(EngineError::io(format!("create volume directory {}", mountpoint.display())))?;
        let volume = VolumeView {
            name: name.clone(),
            driver: "local".into(),
            created: clock::now_nanos(),
            mountpoint: mountpoint.display().to_string(),
            labels: request.labels.clone(),
            options: request.options.clone(),
            anonymous,
            usage: None,
        };
        self.rows().put_volume(&volume)?;
        drop(guard);
        self.volume_event("create", &name, &[]);
        Ok(volume)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// A failing database.
    pub fn volumes(&self) -> Result<Vec<VolumeView>, EngineError> {
        let mut all: Vec<_> = self.rows().volumes()?.into_iter().map(|volume| self.shown(volume)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One volume.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] with Docker's text.
    pub fn volume(&self, name: &str) -> Result<VolumeView, EngineError> {
        let found = self.rows().volume(name)?;
        found.map(|volume| self.shown(volume)).ok_or_else(|| EngineError::NotFound(format!("get {name}: no such volume")))
    }

    /// All volumes with how many containers use them and how many bytes they hold.
    ///
    /// # Errors
    /// A failing database.
    pub fn volume_usage(&self) -> Result<Vec<VolumeView>, EngineError> {
        let mut all = self.volumes()?;
        for volume in &mut all {
            let users = self.users_of(&volume.name).len();
            volume.usage = Some((users as u64, crate::disk::tree_size(&self.volume_folder(&volume.name))));
        }
        Ok(all)
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] (not with `force`), [`EngineError::Conflict`] while containers use it.
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let guard = self.volumes_lock();
        if self.rows().volume(name)?.is_none() {
            return if force { Ok(()) } else { Err(EngineError::NotFound(format!("get {name}: no such volume"))) };
        }
        let users = self.users_of(name);
        if !users.is_empty() {
            return Err(EngineError::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        self.rows().delete_volume(name)?;
        self.discard(&self.volume_folder(name))?;
        self.rows().forget_volume(name)?;
        drop(guard);
        self.volume_event("destroy", name, &[]);
        Ok(())
    }

    /// Removes the volumes that no container uses: anonymous ones, or with `all` named ones too.
    ///
    /// # Errors
    /// A failing disk.
    pub fn prune_volumes(&self, filter: &PruneFilter, all: bool) -> Result<PruneReport, EngineError> {
        let mut report = PruneReport::default();
        for volume in self.volumes()? {
            if !(all || volume.anonymous) || !filter.fits_labels(&volume.labels) || !self.users_of(&volume.name).is_empty() {
                continue;
            }
            let size = crate::disk::tree_size(&self.volume_folder(&volume.name));
            if self.volume_remove(&volume.name, false).is_ok() {
                report.space += size;
                report.deleted.push(volume.name);
            }
        }
        self.events().publish(Event {
            kind: EventKind::Volume,
            action: "prune".into(),
            id: String::new(),
            attributes: vec![("reclaimed".into(), report.space.to_string())],
            time_nano: 0,
        });
        Ok(report)
    }

    /// Ids of the containers that mount a volume.
    pub(crate) fn users_of(&self, volume: &str) -> Vec<String> {
        let uses = |container: &crate::table::Container| {
            let facts = container.facts();
            facts.spec.mounts.iter().any(|mount| mount.kind == "volume" && mount.name == volume).then(|| facts.spec.id.clone())
        };
        self.table().all().iter().filter_map(|container| uses(container)).collect()
    }

    pub(crate) fn volume_folder(&self, name: &str) -> PathBuf {
        self.store().volume_folder(name)
    }

    /// Tells that a container's volumes are in use, or are not any more.
    pub(crate) fn mount_events(&self, container: &Container, action: &str) {
        let (id, mounts) = {
            let facts = container.facts();
            (facts.spec.id.clone(), facts.spec.mounts.clone())
        };
        for mount in mounts.iter().filter(|mount| mount.kind == "volume") {
            let writes = if mount.rw { "true" } else { "false" };
            let more: &[(&str, &str)] = match action {
                "mount" => &[("container", &id), ("destination", &mount.destination), ("propagation", ""), ("read/write", writes)],
                _ => &[("container", &id)],
            };
            self.volume_event(action, &mount.name, more);
        }
    }

    pub(crate) fn volume_event(&self, action: &str, name: &str, more: &[(&str, &str)]) {
        let mut attributes = vec![("driver".to_owned(), "local".to_owned())];
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.events().publish(Event { kind: EventKind::Volume, action: action.into(), id: name.into(), attributes, time_nano: 0 });
    }

    /// The mount point follows the data root, wherever that lies today.
    fn shown(&self, mut volume: VolumeView) -> VolumeView {
        volume.mountpoint = self.volume_folder(&volume.name).join("_data").display().to_string();
        volume
    }
}
