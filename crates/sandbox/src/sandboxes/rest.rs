//! What is done to a container that does not run: its root is mounted, its working directory made.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sampan_layers::{overlay_mount, overlay_mount_with};
use sampan_shim::plan::MountStep;
use sampan_sys::dir;

use super::Sandboxes;

impl Sandboxes {
    /// The root of a container as a detached mount: writable with the container's folder, else read-only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount_root(&self, lowers: &[PathBuf], folder: Option<&Path>) -> io::Result<OwnedFd> {
        let place = self.config.exec_root.join("containers");
        match folder {
            Some(folder) => overlay_mount(lowers, Some((&folder.join("upper"), &folder.join("work"))), &place),
            None => overlay_mount(lowers, None, &place),
        }
    }

    /// The root of a container that does not run, with what is mounted in it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount_whole(&self, lowers: &[PathBuf], folder: &Path, mounts: &[MountStep]) -> io::Result<OwnedFd> {
        let place = self.config.exec_root.join("containers");
        let writable = (folder.join("upper"), folder.join("work"));
        overlay_mount_with(lowers, (&writable.0, &writable.1), &place, |root| sampan_shim::apply::attach_all(mounts, root))
    }

    /// Makes the working directory of a container that does not run, where its image has none.
    ///
    /// # Errors
    /// `NotADirectory` when something else is there; what the kernel says.
    pub fn make_working_directory(&self, lowers: &[PathBuf], folder: &Path, path: &str) -> io::Result<()> {
        let plain = path.trim_matches('/');
        // Nearly always a plain directory of a layer, and nothing need be mounted. One that is whited out is made at the start.
        let is_there = |lower: &PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            dir::open(lower).is_ok_and(|lower| rustix::fs::openat2(&lower, plain, flags, Mode::empty(), resolve).is_ok())
        };
        if plain.is_empty() || lowers.iter().any(is_there) {
            return Ok(());
        }
        let root = self.mount_root(lowers, Some(folder))?;
        sampan_shim::apply::make_working_directory(root.as_fd(), path)
    }
}
