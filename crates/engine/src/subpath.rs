//! What of a volume is mounted: all of it, or a folder or file inside it that no link leads out of.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sampan_sys::dir;

use crate::error::EngineError;
use crate::model::MountPoint;

/// Says in Docker's words why a folder inside a volume cannot be mounted. The shim looks again, in the moment that it mounts.
///
/// # Errors
/// [`EngineError::NotFound`] when it is missing, [`EngineError::Invalid`] when a link leads out of the volume, and another one when
/// a file stands in the way.
pub(crate) fn check(point: &MountPoint) -> Result<(), EngineError> {
    if point.subpath.is_empty() { Ok(()) } else { open(point, OFlags::PATH).map(drop) }
}

/// The folder that is filled with what the image has at its place; `None` when something is in it, or it is missing.
///
/// # Errors
/// [`EngineError::Invalid`] when a link leads out of the volume.
pub(crate) fn to_fill(point: &MountPoint) -> Result<Option<OwnedFd>, EngineError> {
    let folder = match open(point, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(folder) => folder,
        Err(EngineError::Invalid(text)) => return Err(EngineError::Invalid(format!("failed to populate volume: {text}"))),
        // The start will tell.
        Err(EngineError::NotFound(_) | EngineError::Room { .. }) => return Ok(None),
        Err(other) => return Err(other),
    };
    let mut entries = rustix::fs::Dir::read_from(&folder).map_err(|error| EngineError::io("read the volume")(error.into()))?;
    let is_own = |name: &std::ffi::CStr| !matches!(name.to_bytes(), b"." | b"..");
    let is_empty = !entries.any(|entry| entry.is_ok_and(|entry| is_own(entry.file_name())));
    Ok(is_empty.then_some(folder))
}

fn open(point: &MountPoint, flags: OFlags) -> Result<OwnedFd, EngineError> {
    let volume = dir::open(Path::new(&point.source)).map_err(EngineError::io(format!("open the volume {}", point.name)))?;
    let inside = |path: &str, flags| dir::open_beneath(volume.as_fd(), path.as_bytes(), flags);
    inside(&point.subpath, flags).map_err(|error| {
        // The first name that is missing.
        let ends = point.subpath.match_indices('/').map(|(place, _)| place).chain([point.subpath.len()]);
        let missing = ends.map(|end| &point.subpath[..end]).find(|path| inside(path, OFlags::PATH).is_err());
        refusal(point, missing.unwrap_or(&point.subpath), error)
    })
}

fn refusal(point: &MountPoint, missing: &str, error: std::io::Error) -> EngineError {
    let (base, subpath) = (&point.source, &point.subpath);
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => {
            EngineError::NotFound(format!("cannot access path {base}/{subpath}: lstat {base}/{missing}: no such file or directory"))
        }
        Some(Errno::NOTDIR) => {
            let text = format!("error while resolving symlinks in combined path \"{base}/{subpath}\": not a directory");
            EngineError::Room { text, kind: sampan_base::ErrorKind::Internal }
        }
        Some(Errno::XDEV | Errno::LOOP) => {
            EngineError::Invalid(format!("path concatenation escapes the base directory, base: {base}, subpath: {subpath}"))
        }
        _ => EngineError::io(format!("open {base}/{subpath}"))(error),
    }
}
