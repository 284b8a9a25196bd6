//! `docker diff`: what a container's upper directory changed against the layers below.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use sampan_sys::dir;

use crate::pack::is_opaque;

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It differs.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// A changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Absolute path, lossy.
    pub path: String,
}

/// The changes, sorted by path. `lowers` are the layers' directories, top first.
///
/// # Errors
/// A failing disk.
pub fn changes(upper: BorrowedFd<'_>, lowers: &[OwnedFd]) -> io::Result<Vec<Change>> {
    let mut found: BTreeMap<String, ChangeKind> = BTreeMap::new();
    let mut stack = vec![(Vec::new(), String::new())];
    // By path, not by descriptor: a directory may have any number of others in it.
    while let Some((bytes, prefix)) = stack.pop() {
        let directory = match dir::open_plain_in(upper, &bytes, OFlags::RDONLY | OFlags::DIRECTORY) {
            // Gone or replaced meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 20 | 40)) => continue,
            Err(error) if error.raw_os_error() == Some(36) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a tree is too deep: a path of more than 4096 bytes"));
            }
            other => other?,
        };
        if is_opaque(&directory) && !bytes.is_empty() {
            add_hidden(&mut found, &prefix, &directory, lowers)?;
        }
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = format!("{prefix}/{}", name.to_string_lossy());
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let below = lower(lowers, &path);
            let change = match (kind, below) {
                (FileType::CharacterDevice, _) if stat.st_rdev == 0 => Some(ChangeKind::Deleted),
                (_, None) => Some(ChangeKind::Added),
                (FileType::Directory, Some(below)) if same_directory(&stat, &below) => None,
                (_, Some(_)) => Some(ChangeKind::Changed),
            };
            if let Some(change) = change {
                add_parents(&mut found, &path, lowers);
                found.insert(path.clone(), change);
            }
            if kind == FileType::Directory {
                let mut inner = bytes.clone();
                if !inner.is_empty() {
                    inner.push(b'/');
                }
                inner.extend_from_slice(name.to_bytes());
                stack.push((inner, path));
            }
        }
    }
    Ok(found.into_iter().map(|(path, kind)| Change { kind, path }).collect())
}

/// The facts of a path in the highest layer that says something about it; `None` when it is not there or whited out.
fn lower(lowers: &[OwnedFd], path: &str) -> Option<Stat> {
    for layer in lowers {
        if let Ok(stat) = rustix::fs::statat(layer, path.trim_start_matches('/'), AtFlags::SYMLINK_NOFOLLOW) {
            let whiteout = FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == 0;
            return if whiteout { None } else { Some(stat) };
        }
    }
    None
}

fn same_directory(a: &Stat, b: &Stat) -> bool {
    a.st_mode == b.st_mode && (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid) && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

/// A directory in which something changed has changed.
fn add_parents(found: &mut BTreeMap<String, ChangeKind>, path: &str, lowers: &[OwnedFd]) {
    let mut path = path;
    while let Some((parent, _)) = path.rsplit_once('/') {
        if parent.is_empty() {
            return;
        }
        let kind = if lower(lowers, parent).is_some() { ChangeKind::Changed } else { ChangeKind::Added };
        found.entry(parent.to_owned()).or_insert(kind);
        path = parent;
    }
}

/// What an opaque directory hides is gone, unless it was made anew.
fn add_hidden(found: &mut BTreeMap<String, ChangeKind>, path: &str, inner: &OwnedFd, lowers: &[OwnedFd]) -> io::Result<()> {
    for layer in lowers {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::openat(layer, path.trim_start_matches('/'), flags, Mode::empty()) else { continue };
        for entry in rustix::fs::Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || rustix::fs::statat(inner, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                continue;
            }
            found.entry(format!("{path}/{}", name.to_string_lossy())).or_insert(ChangeKind::Deleted);
        }
    }
    Ok(())
}
