//! Where a path of a container is found: in its root, or, of one that does not run, in what would be mounted there.
//!
//! Mounts are told by the path's words: a link of a stopped container's files into one of its mounts leads to the files below it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sampan_base::Cancel;
use sampan_layers::{PackMode, PathStat};
use sampan_sys::dir;

use crate::Engine;
use crate::error::EngineError;
use crate::model::{ContainerSpec, MountPoint};

/// A path inside an open folder.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) root: OwnedFd,
    pub(crate) path: String,
    /// How the container calls it where the folder calls it otherwise: a mount itself.
    name: Option<String>,
}

/// The mount that a path is in, by words alone.
pub(crate) fn mount_of<'a>(spec: &'a ContainerSpec, path: &str) -> Option<&'a MountPoint> {
    let path = crate::mounts::clean(path);
    let above = spec.mounts.iter().filter(|mount| Path::new(&path).starts_with(&mount.destination));
    above.max_by_key(|mount| mount.destination.len())
}

/// What the end of a path says beyond its words: `/.` for the contents, `/` for a folder.
fn ending(path: &str) -> &'static str {
    let trimmed = path.trim_end_matches('/');
    match () {
        () if trimmed == "." || trimmed.ends_with("/.") => "/.",
        () if trimmed.len() < path.len() => "/",
        () => "",
    }
}

fn last_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

impl Engine {
    /// Finds a path of a container.
    pub(crate) fn spot(&self, name: &str, path: &str) -> Result<Spot, EngineError> {
        let container = self.table().find(name)?;
        let (spec, running, started) = {
            let facts = container.facts();
            (facts.spec.clone(), facts.state.status.is_running(), facts.state.has_been_started)
        };
        let clean = crate::mounts::clean(path);
        let mounted = if running { None } else { self.mounted(&spec, &clean, started) };
        let Some((source, destination)) = mounted else { return Ok(Spot { root: self.root(name)?, path: path.to_owned(), name: None }) };
        Spot::open(&source, &clean, &destination, ending(path)).map_err(EngineError::io(format!("open {}", source.display())))
    }

    /// Host path and destination of the mount that a path is in; the files in /etc that we write are mounts, too.
    fn mounted(&self, spec: &ContainerSpec, path: &str, started: bool) -> Option<(PathBuf, String)> {
        if let Some(mount) = mount_of(spec, path) {
            // Nothing is left of a tmpfs; a folder inside a volume is found when it is mounted.
            let is_there = mount.kind != "tmpfs" && mount.subpath.is_empty() && Path::new(&mount.source).exists();
            return is_there.then(|| (PathBuf::from(&mount.source), mount.destination.clone()));
        }
        let name = ["hostname", "hosts", "resolv.conf"].into_iter().find(|name| path == format!("/etc/{name}"))?;
        let file = self.container_folder(&spec.id).join(name);
        (started && file.is_file()).then(|| (file, path.to_owned()))
    }
}

impl Spot {
    fn open(source: &Path, path: &str, destination: &str, ending: &str) -> io::Result<Self> {
        let inside = path.strip_prefix(destination).unwrap_or_default();
        let name = inside.is_empty().then(|| last_name(destination));
        if source.is_dir() {
            let path = if inside.is_empty() && ending.is_empty() { "/".to_owned() } else { format!("{inside}{ending}") };
            return Ok(Self { root: dir::open(source)?, path, name });
        }
        let (Some(folder), Some(file)) = (source.parent(), source.file_name()) else { return Err(io::ErrorKind::NotFound.into()) };
        Ok(Self { root: dir::open(folder)?, path: format!("/{}{inside}{ending}", file.to_string_lossy()), name })
    }

    pub(crate) fn stat(&self) -> io::Result<PathStat> {
        let mut stat = sampan_layers::stat_path(self.root.as_fd(), &self.path)?;
        if let Some(name) = &self.name {
            stat.name.clone_from(name);
        }
        Ok(stat)
    }

    pub(crate) fn archive(&self, out: &mut dyn Write, cancel: &Cancel) -> io::Result<()> {
        match &self.name {
            Some(name) if self.path == "/" => {
                let folder = dir::open_in(self.root.as_fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY)?;
                sampan_layers::pack_below(folder.as_fd(), name.as_bytes(), out, PackMode::Plain, true, cancel).map(drop)
            }
            Some(name) if !self.path.ends_with("/.") => {
                let file = self.path.trim_matches('/');
                sampan_layers::pack_one(self.root.as_fd(), OsStr::new(file), name.as_bytes(), out)
            }
            _ => sampan_layers::archive_path(self.root.as_fd(), &self.path, out, cancel),
        }
    }
}
