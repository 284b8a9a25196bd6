//! Overlay mounts that the host never sees: made on a throw-away thread in a private mount namespace, given back detached.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sampan_sys::{mount as sys, ns};

/// Mounts layers (top first) with a writable upper directory, or read-only without. `place` is any existing directory.
///
/// # Errors
/// What the kernel says; `InvalidInput` for more layers than overlay takes.
pub fn mount(lowers: &[impl AsRef<Path> + Sync], writable: Option<(&Path, &Path)>, place: &Path) -> io::Result<OwnedFd> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut held = Vec::new();
    let mut layers = Vec::new();
    for lower in lowers {
        // By descriptor: the options of a mount have one page, and paths are long.
        let fd = open(lower.as_ref())?;
        layers.push(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
        held.push(fd);
    }
    if writable.is_none() && layers.len() == 1 {
        return sys::clone_tree(rustix::fs::CWD, &CString::new(lowers[0].as_ref().as_os_str().as_encoded_bytes())?, false);
    }
    let mut options = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = writable {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let fd = open(path)?;
            options.push_str(&format!(",{key}=/proc/thread-self/fd/{}", fd.as_raw_fd()));
            held.push(fd);
        }
    }
    if options.len() >= 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many layers for one overlay mount"));
    }
    let (options, place) = (CString::new(options)?, CString::new(place.as_os_str().as_encoded_bytes())?);
    let detached = ns::with_private_mounts(|| {
        sys::mount_with_data(c"overlay", c"overlay", &place, &options)?;
        sys::clone_tree(rustix::fs::CWD, &place, false)
    });
    drop(held);
    detached?
}

/// Makes a directory with its parents that only root can enter.
///
/// # Errors
/// A failing disk.
pub fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o710).create(path)
}
