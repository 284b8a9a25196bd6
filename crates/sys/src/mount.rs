//! Mounts: the new mount API with detached trees, and the few old calls that it does not replace.
//!
//! A detached mount is a descriptor: it is attached with [`attach`] or dies with the descriptor, so a killed process leaves
//! no mount behind.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

bitflags_like! {
    /// Attributes of a mount (`MOUNT_ATTR_*`).
    Attributes {
        /// Cannot be written.
        RDONLY = 0x1,
        /// Set-user-id bits do nothing.
        NOSUID = 0x2,
        /// Device nodes do nothing.
        NODEV = 0x4,
        /// Nothing can be executed.
        NOEXEC = 0x8,
        /// Access times are not kept.
        NOATIME = 0x10,
        /// Access times are always kept.
        STRICTATIME = 0x20,
        /// Directories' access times are not kept.
        NODIRATIME = 0x80,
        /// Symbolic links are not followed.
        NOSYMFOLLOW = 0x20_0000,
    }
}

/// How mounts spread between namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// Into here only.
    Slave,
    /// Not at all, and not to be bound.
    Unbindable,
}

/// What to mount: a plain description that lower and higher rooms share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// File system type (`overlay`, `tmpfs`, …); empty for a bind.
    pub kind: String,
    /// Device or host path.
    pub source: String,
    /// Path to mount at.
    pub target: String,
    /// Options of the file system.
    pub options: Vec<String>,
}

/// Makes a file system and gives its detached mount. Options are `key=value` or `flag`.
///
/// # Errors
/// What the kernel says.
pub fn new_filesystem(kind: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes.bits()).unwrap_or(0));
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached copy of the mount at a path (a bind mount that is nowhere yet).
///
/// # Errors
/// What the kernel says.
pub fn clone_tree(directory: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    Ok(open_tree(directory, path, flags)?)
}

/// Attaches a detached mount at an open place.
///
/// # Errors
/// What the kernel says.
pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", place, c"", flags)?)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Changes attributes and propagation of a mount, and with `recursive` of all below it (mount_setattr(2), Linux 5.12).
///
/// # Errors
/// What the kernel says.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: Attributes,
    clear: Attributes,
    propagation: Option<Propagation>,
    recursive: bool,
) -> io::Result<()> {
    let bits = |attributes: Attributes| attributes.bits();
    let mut attributes = MountAttr { set: bits(set), clear: bits(clear), propagation: 0, userns: 0 };
    if set.contains(Attributes::NOATIME) || set.contains(Attributes::STRICTATIME) {
        attributes.clear |= 0x70; // the whole access-time field has to be named
    }
    attributes.propagation = match propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Shared) => libc::MS_SHARED,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` is a valid mount_attr of the given size; the path is an empty string.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const attributes, size_of::<MountAttr>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes everything below a path private to this mount namespace.
///
/// # Errors
/// What the kernel says.
pub fn make_private_recursive(path: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes everything below a path a slave of the parent namespace: later mounts there reach here, not the other way.
///
/// # Errors
/// What the kernel says.
pub fn make_slave_recursive(path: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount_change(path, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Makes the mount under the current directory this process's root and drops the old root's whole tree.
///
/// # Errors
/// What the kernel says.
pub fn pivot_to_current_directory() -> io::Result<()> {
    rustix::process::pivot_root(c".", c".")?;
    // The old root lies now over the new one: slave first, so that the unmount does not spread to the host.
    make_slave_recursive(c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// mount(2) with a data string, for file systems whose new-API form is missing on old kernels (overlay on 6.1).
///
/// # Errors
/// What the kernel says.
pub fn mount_with_data(kind: &CStr, source: &CStr, target: &CStr, data: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(source, target, kind, rustix::mount::MountFlags::empty(), data)?)
}
