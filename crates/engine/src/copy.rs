//! A container's files: differences, export, copies in and out, commit, and the filling of new volumes.

use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use sampan_base::Cancel;
use sampan_images::CommitOptions;
use sampan_layers::{Change, PackMode, PathStat};
use sampan_oci::{ContainerConfig, ImageId};
use sampan_runtime::options::{MountSource, MountStep};
use sampan_sys::dir;

use crate::Engine;
use crate::error::EngineError;
use crate::model::{Config, ContainerSpec, MountPoint, Status};
use crate::table::Container;

/// What `commit` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// The image's name as typed; empty: none.
    pub reference: String,
    /// Who.
    pub author: String,
    /// A message.
    pub comment: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

impl Engine {
    /// The layers below a container, top first: places to mount at, then its image's.
    pub(crate) fn lowers(&self, spec: &ContainerSpec) -> Result<Vec<std::path::PathBuf>, EngineError> {
        let image: ImageId = spec.image_id.parse().map_err(|_| EngineError::Invalid("the container has no image".into()))?;
        let mut lowers = self.images().lowers(&image).map_err(|error| EngineError::room(&error))?;
        let places = self.places(&image, &lowers)?;
        lowers.insert(0, places);
        Ok(lowers)
    }

    /// A layer with the directories and empty files that every container mounts at, so that they are no changes of the
    /// container. Made once for an image, through an overlay, which keeps the attributes of the image's directories.
    fn places(&self, image: &ImageId, lowers: &[std::path::PathBuf]) -> Result<std::path::PathBuf, EngineError> {
        let fail = || EngineError::io("make the places to mount at");
        let folder = self.data_root().join("fixups").join(image.0.hex());
        let ready = folder.join("fs");
        if ready.is_dir() {
            return Ok(ready);
        }
        let staging = self.staging()?;
        for part in ["upper", "work"] {
            std::fs::create_dir_all(staging.join(part)).map_err(fail())?;
        }
        let root = self.sandboxes().mount_root(lowers, Some(&staging)).map_err(fail())?;
        sampan_layers::make_places(root.as_fd()).map_err(fail())?;
        drop(root);
        std::fs::rename(staging.join("upper"), staging.join("fs")).map_err(fail())?;
        std::fs::create_dir_all(self.data_root().join("fixups")).map_err(fail())?;
        match std::fs::rename(&staging, &folder) {
            // Another create was quicker.
            Err(_) if ready.is_dir() => self.discard(&staging)?,
            other => other.map_err(fail())?,
        }
        Ok(ready)
    }

    /// The root of a container, running or not.
    pub(crate) fn root(&self, name: &str) -> Result<OwnedFd, EngineError> {
        let container = self.table().find(name)?;
        let (spec, running) = {
            let facts = container.facts();
            (facts.spec.clone(), facts.state.status.is_running())
        };
        if running {
            match self.sandboxes().root(&spec.id) {
                // It ended this moment, and that is not written down yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => {}
                other => return other.map_err(EngineError::io("open the container's root")),
            }
        }
        let folder = self.container_folder(&spec.id);
        let mounts = self.steps_at_rest(&spec)?;
        self.sandboxes().mount_whole(&self.lowers(&spec)?, &folder, &mounts).map_err(EngineError::io("mount the container's root"))
    }

    /// What is mounted in a container that does not run: its volumes and folders of the host, and its files below /etc.
    fn steps_at_rest(&self, spec: &ContainerSpec) -> Result<Vec<MountStep>, EngineError> {
        let mut steps = self.mount_steps(spec)?;
        // A tmpfs is empty now, and a folder of the host may be gone.
        steps.retain(|step| match &step.source {
            MountSource::New { .. } | MountSource::Given { .. } => false,
            MountSource::Bind { path, .. } | MountSource::BindBeneath { directory: path, .. } => Path::new(path).exists(),
        });
        for name in ["hostname", "hosts", "resolv.conf"] {
            let (path, target) = (self.container_folder(&spec.id).join(name), format!("/etc/{name}"));
            if path.is_file() && !steps.iter().any(|step| step.target == target) {
                let source = MountSource::Bind { path: path.display().to_string(), recursive: false };
                steps.push(MountStep { source, target, propagation: 1, ..MountStep::default() });
            }
        }
        Ok(steps)
    }

    /// What the container changed against its image.
    ///
    /// # Errors
    /// A failing disk.
    pub fn changes(&self, name: &str) -> Result<Vec<Change>, EngineError> {
        let spec = self.table().find(name)?.facts().spec.clone();
        let upper = self.upper(&spec.id)?;
        let lowers = self
            .lowers(&spec)?
            .iter()
            .map(|path| dir::open(path))
            .collect::<Result<Vec<_>, _>>()
            .map_err(EngineError::io("open the image's layers"))?;
        sampan_layers::changes(upper.as_fd(), &lowers).map_err(EngineError::io("compare the container with its image"))
    }

    fn upper(&self, id: &str) -> Result<OwnedFd, EngineError> {
        dir::open(&self.container_folder(id).join("upper")).map_err(EngineError::io("open the container's layer"))
    }

    /// Writes all files of a container as an archive, without what is mounted in it.
    ///
    /// # Errors
    /// A failing disk or stream.
    pub fn export(&self, name: &str, out: &mut dyn Write, cancel: &Cancel) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        let spec = container.facts().spec.clone();
        // A read-only view of the same layers: mounts of the running container are not part of it.
        let upper = self.container_folder(&spec.id).join("upper");
        let mut lowers = vec![upper];
        lowers.extend(self.lowers(&spec)?);
        let root = self.sandboxes().mount_root(&lowers, None).map_err(EngineError::io("mount the container's root"))?;
        sampan_layers::pack(root.as_fd(), out, PackMode::Plain, cancel).map_err(EngineError::io("write the archive"))?;
        self.container_event(&container, "export", &[]);
        Ok(())
    }

    /// The facts of a path in a container.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] with Docker's text.
    pub fn archive_stat(&self, name: &str, path: &str) -> Result<PathStat, EngineError> {
        self.spot(name, path)?.stat().map_err(|error| missing(name, path, error))
    }

    /// Writes an archive of a path in a container.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] with Docker's text.
    pub fn archive_get(&self, name: &str, path: &str, out: &mut dyn Write, cancel: &Cancel) -> Result<(), EngineError> {
        self.spot(name, path)?.archive(out, cancel).map_err(|error| missing(name, path, error))?;
        self.container_event(&self.table().find(name)?, "archive-path", &[]);
        Ok(())
    }

    /// Unpacks an archive into a directory of a container.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a path that is no directory, or in a read-only root or mount.
    pub fn archive_put(&self, name: &str, path: &str, archive: &mut dyn Read, cancel: &Cancel) -> Result<(), EngineError> {
        let container = self.table().find(name)?;
        self.check_writable(&container, path)?;
        let spot = self.spot(name, &format!("{}/.", path.trim_end_matches('/')))?;
        let stat = spot.stat().map_err(|error| missing(name, path, error))?;
        if stat.mode & (1 << 31) == 0 {
            return Err(EngineError::Invalid("extraction point is not a directory".into()));
        }
        sampan_layers::put_archive(spot.root.as_fd(), &spot.path, archive, cancel).map_err(|error| EngineError::room(&error))?;
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// The nearest mount above a path decides, else the root.
    fn check_writable(&self, container: &Container, path: &str) -> Result<(), EngineError> {
        let facts = container.facts();
        match crate::spot::mount_of(&facts.spec, path) {
            Some(mount) if !mount.rw => Err(EngineError::Invalid("mounted volume is marked read-only".into())),
            None if facts.spec.host.readonly_rootfs => Err(EngineError::Invalid("container rootfs is marked read-only".into())),
            _ => Ok(()),
        }
    }

    /// What a container presets for an image made of it; what is given goes before what the container has.
    ///
    /// # Errors
    /// When there is none.
    pub fn image_config(&self, name: &str, given: Config) -> Result<ContainerConfig, EngineError> {
        let container = self.table().find(name)?;
        let config = container.facts().spec.config.clone();
        Ok(crate::image_config::to_image(&crate::merge::merge(given, &config)))
    }

    /// Makes an image of a container.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn commit(&self, request: CommitRequest, config: ContainerConfig) -> Result<ImageId, EngineError> {
        let container = self.table().find(&request.container)?;
        let (spec, running) = {
            let facts = container.facts();
            (facts.spec.clone(), facts.state.status == Status::Running)
        };
        let frozen = request.pause && running && self.sandboxes().pause(&spec.id).is_ok();
        let parent = self.images().resolve(&spec.image_id).ok();
        let words: Vec<&str> =
            spec.config.entrypoint.iter().flatten().chain(spec.config.cmd.iter().flatten()).map(String::as_str).collect();
        let options = CommitOptions {
            reference: request.reference.clone(),
            author: request.author,
            comment: request.comment,
            config,
            created_by: words.join(" "),
        };
        let result = self.upper(&spec.id).and_then(|upper| {
            self.images().commit(upper.as_fd(), parent.as_ref(), &options, &Cancel::new()).map_err(|error| EngineError::room(&error))
        });
        if frozen && let Err(error) = self.sandboxes().resume(&spec.id) {
            tracing::error!(container = %spec.id, %error, "cannot thaw a container after a commit");
        }
        let id = result?;
        self.container_event(
            &container,
            "commit",
            &[("comment", &options.comment), ("imageID", &id.to_string()), ("imageRef", &options.reference)],
        );
        Ok(id)
    }

    /// Fills an empty volume, or the empty folder inside it that is mounted, with what the image has at its place.
    pub(crate) fn copy_up(&self, spec: &ContainerSpec, point: &MountPoint) -> Result<(), EngineError> {
        let fail = EngineError::io;
        let target = crate::subpath::to_fill(point);
        if matches!(target, Ok(None)) {
            return Ok(());
        }
        let root = self.sandboxes().mount_root(&self.lowers(spec)?, None).map_err(fail("mount the image"))?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let Ok(source) = dir::open_in(root.as_fd(), point.destination.as_bytes(), flags) else { return Ok(()) };
        let Some(target) = target? else { return Ok(()) };
        let (reader, writer) = std::io::pipe().map_err(fail("make a pipe"))?;
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| sampan_layers::pack_below(source.as_fd(), b"", writer, PackMode::Plain, true, &cancel));
            let unpacked = sampan_layers::extract(reader, target.as_fd(), sampan_layers::Mode::Plain, &cancel);
            let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            unpacked.map_err(|error| EngineError::room(&error))?;
            packed.map(drop).map_err(fail("read the image"))
        })
    }
}

fn missing(container: &str, path: &str, error: std::io::Error) -> EngineError {
    match error.kind() {
        std::io::ErrorKind::NotFound => EngineError::NotFound(format!("Could not find the file {path} in container {container}")),
        std::io::ErrorKind::NotADirectory => EngineError::Invalid("extraction point is not a directory".into()),
        std::io::ErrorKind::InvalidInput => EngineError::Invalid(format!("invalid path {path:?} in container {container}")),
        _ => EngineError::Io { action: format!("open {path} in container {container}"), source: error },
    }
}
