//! A directory of a root that is changed: where its changes go, and the same directory in the layers below.
//!
//! Changes are written into the upper directory of a layer itself, by overlay's rules, and not through a mount: there the kernel
//! would copy contents by hand, and nothing could be a link to an earlier layer's file. A directory of the lower layers is made in
//! the upper one, with its attributes, when something is written into it and not before.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use sampan_sys::dir;

use super::source::{join, split};

/// Links that are followed on one way.
const LINKS: usize = 40;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An upper directory over a view of the layers below.
#[derive(Debug)]
pub(crate) struct Merged {
    upper: OwnedFd,
    lower: OwnedFd,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Directory,
    Link,
    Other,
}

impl Found {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            // A whiteout of the lowest layer, which no overlay mount hides.
            FileType::CharacterDevice if stat.st_rdev == 0 => Self::Nothing,
            _ => Self::Other,
        }
    }
}

/// What a name is in an open directory.
pub(super) fn look(folder: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    match rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Found::of(&stat)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

fn look_at(root: &OwnedFd, path: &[u8]) -> io::Result<Found> {
    match dir::open_plain_in(root.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(place) => Ok(Found::of(&rustix::fs::fstat(&place)?)),
        Err(error) if matches!(error.raw_os_error(), Some(2 | 20 | 40)) => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

fn error(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

impl Merged {
    pub(crate) fn new(upper: OwnedFd, lower: OwnedFd) -> Self {
        Self { upper, lower }
    }

    /// What a path without links on its way is.
    fn look(&self, path: &[u8]) -> io::Result<Found> {
        Ok(match look_at(&self.upper, path)? {
            Found::Nothing => look_at(&self.lower, path)?,
            found => found,
        })
    }

    /// Opens what a path without links on its way is.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let root = if look_at(&self.upper, path)? == Found::Nothing { &self.lower } else { &self.upper };
        dir::open_plain_in(root.as_fd(), path, flags)
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let place = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(rustix::fs::readlinkat(&place, "", Vec::new())?.into_bytes())
    }

    /// Follows a path with its links, as the kernel does inside a root: what it leads to, and where that is.
    pub(super) fn resolve(&self, path: &[u8]) -> io::Result<(Vec<u8>, Found)> {
        let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut pending = parts(path);
        let (mut at, mut found, mut links) = (Vec::new(), Found::Directory, 0);
        while let Some(part) = pending.pop() {
            if matches!(part.as_slice(), b"" | b".") {
                continue;
            }
            if found != Found::Directory {
                return Err(error(rustix::io::Errno::NOTDIR));
            }
            if part == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &part);
            match self.look(&next)? {
                Found::Nothing => return Err(error(rustix::io::Errno::NOENT)),
                Found::Link => {
                    links += 1;
                    if links > LINKS {
                        return Err(error(rustix::io::Errno::LOOP));
                    }
                    let link = self.read_link(&next)?;
                    if link.starts_with(b"/") {
                        at.clear();
                    }
                    pending.extend(parts(&link));
                }
                other => (at, found) = (next, other),
            }
        }
        Ok((at, found))
    }

    /// A directory by its path without links.
    pub(super) fn folder(&self, path: Vec<u8>) -> io::Result<Folder> {
        let lower = match dir::open_plain_in(self.lower.as_fd(), &path, FOLDER) {
            Ok(lower) => Some(lower),
            Err(error) if matches!(error.raw_os_error(), Some(2 | 20 | 40)) => None,
            Err(error) => return Err(error),
        };
        let upper = match dir::open_plain_in(self.upper.as_fd(), &path, FOLDER) {
            Ok(upper) => OnceCell::from(upper),
            Err(error) if error.raw_os_error() == Some(2) => OnceCell::new(),
            Err(error) => return Err(error),
        };
        Ok(Folder { path, lower, upper })
    }

    /// Makes a directory of the lower layers in the upper one, with those on the way to it; parents keep their times.
    fn raise(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut at = Vec::new();
        let mut folder = dir::open_plain_in(self.upper.as_fd(), b"", FOLDER)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            at = join(&at, part);
            let name = OsStr::from_bytes(part);
            folder = match rustix::fs::openat(&folder, name, FOLDER, Mode::empty()) {
                Ok(inner) => inner,
                Err(rustix::io::Errno::NOENT) => {
                    let like = dir::open_plain_in(self.lower.as_fd(), &at, FOLDER)?;
                    let before = rustix::fs::fstat(&folder)?;
                    rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
                    let made = rustix::fs::openat(&folder, name, FOLDER, Mode::empty())?;
                    take_after(&made, &like)?;
                    rustix::fs::futimens(&folder, &times_of(&before))?;
                    made
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(folder)
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) }
}

/// Gives a directory the attributes of another.
fn take_after(made: &OwnedFd, like: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(like)?;
    rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in super::source::xattrs(like, &|name| !name.starts_with("trusted.overlay."))? {
        match rustix::fs::fsetxattr(made, name.as_str(), &value, XattrFlags::empty()) {
            // What this file system does not keep here either is no loss.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::futimens(made, &times_of(&stat))?)
}

/// An open directory of a target.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Without links, from the root.
    pub(super) path: Vec<u8>,
    /// The same directory in the lower layers, where it is there.
    lower: Option<OwnedFd>,
    upper: OnceCell<OwnedFd>,
}

impl Folder {
    /// A directory that has nothing below it.
    pub(super) fn plain(path: Vec<u8>, folder: OwnedFd) -> Self {
        Self { path, lower: None, upper: OnceCell::from(folder) }
    }

    /// What a name is in the lower layers.
    pub(super) fn below(&self, name: &[u8]) -> io::Result<Found> {
        self.lower.as_ref().map_or(Ok(Found::Nothing), |lower| look(lower, name))
    }

    /// What a name is.
    pub(super) fn look(&self, name: &[u8]) -> io::Result<Found> {
        let above = self.upper.get().map_or(Ok(Found::Nothing), |upper| look(upper, name))?;
        if above == Found::Nothing { self.below(name) } else { Ok(above) }
    }

    /// Where what is made in it goes.
    pub(super) fn writable(&self, merged: Option<&Merged>) -> io::Result<&OwnedFd> {
        if let (None, Some(merged)) = (self.upper.get(), merged) {
            let raised = merged.raise(&self.path)?;
            return Ok(self.upper.get_or_init(|| raised));
        }
        self.upper.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory itself, to set its times at the end: only where something was made in it, or it was made.
    pub(super) fn made(&self) -> Option<&OwnedFd> {
        self.upper.get()
    }
}

#[cfg(test)]
mod tests;
