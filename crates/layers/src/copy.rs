//! The file half of `docker cp`: facts, archives out, archives in, all inside a container's root.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, OFlags};
use sampan_base::Cancel;
use sampan_sys::dir;

use crate::extract::{ExtractError, Mode, extract};
use crate::pack::{PackMode, pack_below, pack_one};

/// The facts of a path, as clients get them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last name.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `fs.FileMode` bits.
    pub mode: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Absolute target of a link, inside the root.
    pub link_target: String,
}

/// Opens the folder of a path (following links inside the root) and gives the last name. The root itself has none.
fn parent<'a>(root: BorrowedFd<'_>, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let trimmed = path.trim_end_matches('/').trim_end_matches("/.");
    let (folder, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if name == ".." {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((dir::open_in(root, folder.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?, name))
}

/// Go's mode bits of a file type and its permissions.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => (1 << 26) | (1 << 21),
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    bits.iter().filter(|(bit, _)| mode & bit != 0).fold(kind | (mode & 0o777), |all, (_, go)| all | go)
}

/// The facts of a path; its last name is not followed, unless the path ends in `/` or `/.`.
///
/// # Errors
/// `NotFound`, `NotADirectory`, a failing disk.
pub fn stat_path(root: BorrowedFd<'_>, path: &str) -> io::Result<PathStat> {
    let (folder, name) = parent(root, path)?;
    let (stat, shown) = if name.is_empty() || name == "." {
        (rustix::fs::fstat(&folder)?, "/".to_owned())
    } else if path.ends_with('/') || path.ends_with("/.") {
        let opened = dir::open_in(root, path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?;
        (rustix::fs::fstat(&opened)?, name.to_owned())
    } else {
        (rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?, name.to_owned())
    };
    let link_target = if FileType::from_raw_mode(stat.st_mode).is_symlink() {
        let target = rustix::fs::readlinkat(&folder, name, Vec::new())?.to_string_lossy().into_owned();
        if target.starts_with('/') { target } else { format!("{}/{target}", path.rsplit_once('/').map_or("", |(folder, _)| folder)) }
    } else {
        String::new()
    };
    let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    Ok(PathStat { name: shown, size: stat.st_size, mode: go_mode(stat.st_mode), mtime, link_target })
}

/// Whether a path says `.` at its end: what is in the directory, not the directory.
fn means_contents(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path == "." || path.ends_with("/.")
}

/// Writes an archive of a path: a directory with all below it under its own name (`./` when the path ends in `.`, `/` for the
/// root), anything else as one entry.
///
/// # Errors
/// As [`stat_path`].
pub fn archive_path(root: BorrowedFd<'_>, path: &str, out: impl Write, cancel: &Cancel) -> io::Result<()> {
    let (folder, name) = parent(root, path)?;
    let directory = if name.is_empty() || name == "." {
        Some(dir::open_in(root, b"", OFlags::RDONLY | OFlags::DIRECTORY)?)
    } else if path.ends_with('/') || path.ends_with("/.") {
        Some(dir::open_in(root, path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)?)
    } else {
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        is_directory.then(|| dir::open_in(folder.as_fd(), name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)).transpose()?
    };
    match directory {
        Some(directory) => {
            let prefix = match name {
                _ if means_contents(path) => ".",
                "" => "/",
                name => name,
            };
            pack_below(directory.as_fd(), prefix.as_bytes(), out, PackMode::Plain, true, cancel).map(drop)
        }
        None => pack_one(folder.as_fd(), OsStr::from_bytes(name.as_bytes()), name.as_bytes(), out),
    }
}

/// Unpacks an archive into a directory of the root.
///
/// # Errors
/// [`ExtractError`].
pub fn put_archive(root: BorrowedFd<'_>, path: &str, archive: impl Read, cancel: &Cancel) -> Result<(), ExtractError> {
    let fail = |source| ExtractError::Write { path: path.to_owned(), source };
    let directory = dir::open_in(root, path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
    extract(archive, directory.as_fd(), Mode::Plain, cancel).map(drop)
}
