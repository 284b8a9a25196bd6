//! Directories by descriptor: lookups that cannot leave a root, and recursive removal that follows no link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// Opens a directory of the host.
///
/// # Errors
/// What open(2) says.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a place inside a root: links mean what they mean there, `..` stops at the root, magic links are refused.
///
/// # Errors
/// What openat2(2) says.
pub fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT)
}

/// Opens a place inside a root that no link leads out of: one that points outside is the error `EXDEV`, where [`open_in`] would take
/// the root for its end.
///
/// # Errors
/// What openat2(2) says.
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::BENEATH)
}

/// A rename elsewhere in the tree may make openat2 give up for the moment: it asks to be called again.
fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, confined: ResolveFlags) -> io::Result<OwnedFd> {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let path = if path[start..].is_empty() { b"." } else { &path[start..] };
    let path = OsStr::from_bytes(path);
    for _ in 0..128 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), confined | ResolveFlags::NO_MAGICLINKS) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

/// Sets the mode of a name that is still of a type: what is looked at is what is changed, no link is followed. For files that
/// must not be opened: devices and pipes.
///
/// # Errors
/// `InvalidInput` when something else stands there by now; what the kernel says.
pub fn set_mode(folder: BorrowedFd<'_>, name: &OsStr, kind: FileType, mode: u32) -> io::Result<()> {
    let place = rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != kind {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it was replaced meanwhile"));
    }
    Ok(rustix::fs::chmod(by_descriptor(&place), Mode::from_raw_mode(mode))?)
}

/// Opens a regular file for reading, by a name that is looked at before: opening a device or a pipe could do something.
///
/// # Errors
/// `InvalidInput` when it is none; what the kernel says.
pub fn open_regular(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let place = rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode).is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it was replaced meanwhile"));
    }
    Ok(rustix::fs::open(by_descriptor(&place), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// A path that leads to an open file, for calls that take none that is open for its location only.
fn by_descriptor(place: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(place))
}

/// Opens a place inside a root that must not be reached through any link.
///
/// # Errors
/// What openat2(2) says.
pub fn open_plain_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, OsStr::from_bytes(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// How many levels of a tree are open at once while it is removed.
const LEVELS: usize = 32;

/// Removes a name and everything below it, however deep: what lies deeper than a few levels is first moved up beside the name.
/// What is gone already is fine.
///
/// # Errors
/// The first failure; the rest is tried all the same.
pub fn remove_all(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut first = Ok(());
    let mut pending = vec![name.to_owned()];
    let mut moved = 0;
    while let Some(name) = pending.pop() {
        let mut lift = |inner: BorrowedFd<'_>, deep: &OsStr| {
            let place = OsString::from(format!(".remove-{}-{moved}", std::process::id()));
            moved += 1;
            rustix::fs::renameat_with(inner, deep, folder, &place, rustix::fs::RenameFlags::NOREPLACE).map(|()| pending.push(place))
        };
        let removed = remove_tree(folder, &name, &mut lift);
        first = first.and(removed);
    }
    first
}

/// A directory that is being emptied.
struct Level {
    directory: OwnedFd,
    name: OsString,
    inner: Vec<OsString>,
}

/// Removes a tree; directories beyond the deepest level are lifted out of it.
fn remove_tree(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    lift: &mut dyn FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut first: io::Result<()> = Ok(());
    let mut levels = vec![enter(folder, name, &mut first)?];
    while let Some(level) = levels.last_mut() {
        let Some(inner) = level.inner.pop() else {
            let name = std::mem::take(&mut level.name);
            levels.pop();
            let parent = levels.last().map_or(folder, |level| level.directory.as_fd());
            match rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => first = first.and(Err(error.into())),
            }
            continue;
        };
        if levels.len() >= LEVELS {
            let lifted = levels.last().map_or(Ok(()), |level| lift(level.directory.as_fd(), &inner));
            first = first.and(lifted.map_err(io::Error::from));
            continue;
        }
        let entered = levels.last().map(|level| enter(level.directory.as_fd(), &inner, &mut first));
        match entered {
            Some(Ok(level)) => levels.push(level),
            Some(Err(error)) => first = first.and(Err(error)),
            None => {}
        }
    }
    first
}

/// Opens a directory and removes what is no directory in it.
fn enter(folder: BorrowedFd<'_>, name: &OsStr, first: &mut io::Result<()>) -> io::Result<Level> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let mut inner = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            inner.push(name.to_owned());
            continue;
        }
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // Some file systems do not tell the type.
            Err(rustix::io::Errno::ISDIR) => inner.push(name.to_owned()),
            Err(error) if first.is_ok() => *first = Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(Level { directory, name: name.to_owned(), inner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = open(folder.path()).unwrap();
        let mut place = top.try_clone().unwrap();
        for _ in 0..30_000 {
            rustix::fs::mkdirat(&place, "d", Mode::from_raw_mode(0o755)).unwrap();
            place = rustix::fs::openat(&place, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("/", &place, "link").unwrap();
        drop(place);
        let small = std::thread::Builder::new().stack_size(64 << 10);
        small.spawn(move || remove_all(top.as_fd(), OsStr::new("d"))).unwrap().join().unwrap().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_regular_files_are_opened_and_links_keep_their_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let top = open(folder.path()).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::fs::set_permissions(folder.path().join("file"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        rustix::fs::mknodat(&top, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_regular(top.as_fd(), OsStr::new("file")).is_ok());
        for name in ["link", "pipe"] {
            assert!(open_regular(top.as_fd(), OsStr::new(name)).is_err(), "{name}");
        }
        assert!(set_mode(top.as_fd(), OsStr::new("link"), FileType::Fifo, 0o777).is_err());
        set_mode(top.as_fd(), OsStr::new("pipe"), FileType::Fifo, 0o641).unwrap();
        let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("file"), mode("pipe")), (0o600, 0o641));
    }
}
