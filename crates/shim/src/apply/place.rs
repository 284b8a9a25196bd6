//! Places inside a container's root: found and made without ever following a link out of it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// How lookups are confined: links mean what they mean inside the root, and no magic link is followed.
fn confined() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

/// Opens a place for its location only.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    retry(|| rustix::fs::openat2(root, relative(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), confined()))
}

/// Opens a place that must not be reached through any link.
pub(crate) fn open_plain(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    retry(|| rustix::fs::openat2(root, relative(path), flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS))
}

/// A rename elsewhere in the tree may make openat2 give up for the moment: it asks to be called again.
fn retry(mut open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    for _ in 0..64 {
        match open() {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

/// The form openat2 wants inside a root: never empty.
fn relative(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

/// Makes a directory with its missing parents and opens it.
pub(crate) fn make_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    if let Ok(found) = open(root, path) {
        return Ok(found);
    }
    let mut done = String::new();
    let mut place = open(root, "")?;
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        done.push('/');
        done.push_str(part);
        place = match open(root, &done) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&place, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                // A dangling link of that name stays an error.
                open(root, &done)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(place)
}

/// Makes an empty file with its missing parents, if there is nothing, and opens it.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    if let Ok(found) = open(root, path) {
        return Ok(found);
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = make_directory(root, folder)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?);
    open(root, path)
}

/// Whether an open place is a directory.
pub(crate) fn is_directory(place: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_dir())
}

/// Whether an open file lies on the file system with this magic number.
pub(crate) fn is_on(place: BorrowedFd<'_>, magic: u64) -> io::Result<bool> {
    Ok(u64::try_from(rustix::fs::fstatfs(place)?.f_type).is_ok_and(|kind| kind == magic))
}

/// Writes a value to a file below an open directory, with one write(2), following no link out of it.
pub(crate) fn write_beneath(directory: &OwnedFd, path: &CStr, value: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = retry(|| rustix::fs::openat2(directory.as_fd(), path, flags, Mode::empty(), resolve))?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
