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

/// How many links to places that do not exist yet are followed.
const MOST_LINKS: usize = 40;

/// A name that is missing in an open folder, to be made.
struct Missing {
    folder: OwnedFd,
    name: String,
    path: String,
}

/// Goes down a path as far as it exists, and through links to places that do not exist yet: they mean what they mean inside the
/// root. Missing folders on the way are made; the last name is left to the caller.
fn descend(root: BorrowedFd<'_>, path: &str) -> io::Result<Result<OwnedFd, Missing>> {
    if let Ok(found) = open(root, path) {
        return Ok(Ok(found));
    }
    let mut pending: Vec<String> = parts(path);
    let mut done = String::new();
    let mut place = open(root, "")?;
    let mut links = 0;
    while let Some(part) = pending.pop() {
        let next = format!("{done}/{part}");
        match open(root, &next) {
            Ok(found) => (place, done) = (found, next),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match rustix::fs::readlinkat(&place, &part, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    let target = target.into_string().map_err(|_| rustix::io::Errno::ILSEQ)?;
                    if links > MOST_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.starts_with('/') {
                        (place, done) = (open(root, "")?, String::new());
                    }
                    pending.extend(parts(&target));
                }
                Err(rustix::io::Errno::NOENT) if pending.is_empty() => return Ok(Err(Missing { folder: place, name: part, path: next })),
                Err(rustix::io::Errno::NOENT) => {
                    match rustix::fs::mkdirat(&place, &part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    (place, done) = (open(root, &next)?, next);
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(place))
}

/// The components of a path, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// Makes a directory with its missing parents and opens it.
pub(crate) fn make_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match descend(root, path)? {
        Ok(found) => Ok(found),
        Err(missing) => {
            match rustix::fs::mkdirat(&missing.folder, &missing.name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            open(root, &missing.path)
        }
    }
}

/// Makes a directory with its missing parents below a root.
///
/// # Errors
/// `NotADirectory` when something else is there; what the kernel says.
pub fn make_working_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let place = make_directory(root, path)?;
    if is_directory(place.as_fd())? { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// Makes an empty file with its missing parents, if there is nothing, and opens it.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match descend(root, path)? {
        Ok(found) => Ok(found),
        Err(missing) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&missing.folder, &missing.name, flags, Mode::from_raw_mode(0o644))?);
            open(root, &missing.path)
        }
    }
}

/// Whether an open place is a directory.
pub(crate) fn is_directory(place: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_dir())
}

/// The magic number of procfs.
pub(crate) const PROCFS: u64 = 0x9fa0;

/// Whether an open file lies on the file system with this magic number.
pub(crate) fn is_on(place: BorrowedFd<'_>, magic: u64) -> io::Result<bool> {
    Ok(u64::try_from(rustix::fs::fstatfs(place)?.f_type).is_ok_and(|kind| kind == magic))
}

/// Writes a value to a file below an open directory, with one write(2), following no link out of it.
pub(crate) fn write_beneath(directory: &OwnedFd, path: &CStr, value: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = retry(|| rustix::fs::openat2(directory.as_fd(), path, flags, Mode::empty(), resolve))?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_missing_places_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        let outside = folder.path().join("outside");
        for (name, target) in
            [("dangling", "/made/here"), ("up", "../../../outside/x"), ("a/loop", "loop"), ("host", outside.to_str().unwrap())]
        {
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        }
        let handle = sampan_sys::dir::open(&root).unwrap();
        make_directory(handle.as_fd(), "/dangling/sub").unwrap();
        make_file(handle.as_fd(), "/up").unwrap();
        make_file(handle.as_fd(), "/host/file").unwrap();
        assert!(root.join("made/here/sub").is_dir() && root.join("outside/x").is_file());
        assert!(root.join(outside.strip_prefix("/").unwrap()).join("file").is_file() && !outside.exists());
        assert_eq!(make_directory(handle.as_fd(), "/a/loop/x").unwrap_err().raw_os_error(), Some(40));
        assert_eq!(make_directory(handle.as_fd(), "/outside/x/y").unwrap_err().raw_os_error(), Some(20));
    }
}
