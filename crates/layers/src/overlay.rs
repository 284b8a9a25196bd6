//! Overlay mounts that the host never sees: made on a throw-away thread in a private mount namespace, given back detached.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sampan_sys::{mount as sys, ns};

/// Mounts layers (top first) with a writable upper directory, or read-only without. `place` is any existing directory.
///
/// # Errors
/// What the kernel says; `InvalidInput` for more layers than overlay takes.
pub fn mount(lowers: &[impl AsRef<Path> + Sync], writable: Option<(&Path, &Path)>, place: &Path) -> io::Result<OwnedFd> {
    let mut others = lowers.iter().skip(1).map(AsRef::as_ref);
    if writable.is_none() && others.all(|other: &Path| other == lowers[0].as_ref()) {
        return sys::clone_tree(rustix::fs::CWD, &CString::new(lowers[0].as_ref().as_os_str().as_encoded_bytes())?, false);
    }
    let place = CString::new(place.as_os_str().as_encoded_bytes())?;
    ns::with_private_mounts(|| {
        // Opened in here: overlay takes directories of its own mount namespace only.
        let (options, held) = options(lowers, writable)?;
        sys::mount_with_data(c"overlay", c"overlay", &place, &options)?;
        drop(held);
        sys::clone_tree(rustix::fs::CWD, &place, false)
    })?
}

/// The same, writable, with something done to it before it is given back: `more` gets its root where further mounts may be attached,
/// which are part of what is given back.
///
/// # Errors
/// What the kernel says, or `more`.
pub fn mount_with(
    lowers: &[impl AsRef<Path> + Sync],
    (upper, work): (&Path, &Path),
    place: &Path,
    more: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send,
) -> io::Result<OwnedFd> {
    let path = CString::new(place.as_os_str().as_encoded_bytes())?;
    ns::with_private_mounts(|| {
        let (options, held) = options(lowers, Some((upper, work)))?;
        sys::mount_with_data(c"overlay", c"overlay", &path, &options)?;
        drop(held);
        more(sampan_sys::dir::open(place)?.as_fd())?;
        sys::clone_tree(rustix::fs::CWD, &path, true)
    })?
}

/// The options of the mount, and the open directories that they name.
fn options(lowers: &[impl AsRef<Path>], writable: Option<(&Path, &Path)>) -> io::Result<(CString, Vec<OwnedFd>)> {
    let mut held = Vec::new();
    // By descriptor: the options of a mount have one page, and paths are long.
    let mut name = |path: &Path| -> io::Result<String> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        held.push(fd);
        Ok(name)
    };
    // A layer that comes twice shows itself where it is on top; the kernel refuses the same directory a second time.
    let mut seen = std::collections::HashSet::new();
    let unique = lowers.iter().map(AsRef::as_ref).filter(|lower| seen.insert(*lower));
    let layers = unique.map(&mut name).collect::<io::Result<Vec<_>>>()?;
    let mut text = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = writable {
        text.push_str(&format!(",upperdir={},workdir={}", name(upper)?, name(work)?));
    }
    if text.len() >= 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many layers for one overlay mount"));
    }
    Ok((CString::new(text)?, held))
}

/// Makes a directory with its parents that only root can enter.
///
/// # Errors
/// A failing disk.
pub fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o710).create(path)
}

/// Makes the directories and empty files that containers mount at, where they are missing; links of an image are followed inside
/// the root only.
///
/// # Errors
/// A failing disk.
pub fn make_places(root: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use sampan_sys::dir::open_in;
    for path in ["proc", "sys", "dev", "dev/pts", "dev/shm", "etc"] {
        if open_in(root, path.as_bytes(), OFlags::PATH).is_err() {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let folder = open_in(root, folder.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                // A link to nowhere stays what it is.
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let Ok(etc) = open_in(root, b"etc", OFlags::PATH | OFlags::DIRECTORY) else { return Ok(()) };
    match rustix::fs::symlinkat("/proc/mounts", &etc, "mtab") {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    for name in ["hostname", "hosts", "resolv.conf"] {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&etc, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
