//! Devices of the host that a container gets: those it names, or, privileged, all of them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sampan_runtime::options::Device;

use crate::error::EngineError;
use crate::model::DeviceMapping;

/// What a container has of its own below /dev.
const OWN: &[&str] = &["console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"];

/// A device node like one of the host; `None` for anything else.
fn node(facts: &std::fs::Metadata, path: String, rights: &str) -> Option<Device> {
    let kind = facts.file_type();
    if !(kind.is_char_device() || kind.is_block_device()) {
        return None;
    }
    let (major, minor) = (rustix::fs::major(facts.rdev()), rustix::fs::minor(facts.rdev()));
    Some(Device { path, mode: facts.mode(), major, minor, uid: facts.uid(), gid: facts.gid(), rights: rights.to_owned() })
}

/// Everything below the host's /dev but what containers have of their own.
pub(crate) fn of_host() -> Vec<Device> {
    below(Path::new("/dev"), OWN)
}

/// Links are not followed; what goes away meanwhile is left out.
fn below(top: &Path, own: &[&str]) -> Vec<Device> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, Ok(facts)) = (entry.path(), entry.metadata()) else { continue };
            if folder == top && own.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if facts.is_dir() {
                pending.push(path);
            } else if let Some(device) = node(&facts, path.display().to_string(), "rwm") {
                found.push(device);
            }
        }
    }
    found
}

/// A host device, or all below a directory.
pub(crate) fn wanted(mapping: &DeviceMapping) -> Result<Vec<Device>, EngineError> {
    let gone = |error: std::io::Error| {
        EngineError::Invalid(format!("error gathering device information while adding custom device \"{}\": {error}", mapping.path_on_host))
    };
    let mut found = Vec::new();
    let mut pending = vec![(std::path::PathBuf::from(&mapping.path_on_host), mapping.path_in_container.clone())];
    while let Some((path, target)) = pending.pop() {
        let facts = path.metadata().map_err(gone)?;
        let kind = facts.file_type();
        if kind.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(gone)?.flatten() {
                // Links are left out, broken or not: they lead out of the folder.
                if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                    continue;
                }
                pending.push((entry.path(), format!("{target}/{}", entry.file_name().to_string_lossy())));
            }
        } else {
            let rights = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
            found.extend(node(&facts, target, rights));
        }
    }
    if found.is_empty() {
        return Err(EngineError::Invalid(format!(
            "error gathering device information while adding custom device \"{0}\": \"{0}\": not a device node",
            mapping.path_on_host
        )));
    }
    Ok(found)
}
