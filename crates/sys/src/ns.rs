//! Namespaces: entering them, and throw-away threads that live in their own.
#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's interfaces mix widths and signs: the values are flags, descriptors and process ids"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use crate::process::NewNamespaces;

/// Moves this thread into the given namespaces of a process (setns(2) with a pidfd, Linux 5.8).
///
/// # Errors
/// What the kernel says; `EINVAL` for a mount or user namespace in a threaded process.
pub fn enter_process(pidfd: BorrowedFd<'_>, namespaces: NewNamespaces) -> io::Result<()> {
    setns(pidfd, namespaces.bits() as i32)
}

/// Moves this thread into the namespace behind a descriptor of /proc/PID/ns.
///
/// # Errors
/// What the kernel says.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace, 0)
}

fn setns(fd: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call; the call changes no memory.
    if unsafe { libc::setns(fd.as_raw_fd(), kind) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the shared namespaces of this thread for new ones (unshare(2)).
///
/// # Errors
/// What the kernel says.
pub fn unshare(namespaces: NewNamespaces) -> io::Result<()> {
    // SAFETY: without CLONE_FILES and CLONE_VM no memory or descriptor changes its owner.
    if unsafe { libc::unshare(namespaces.bits() as i32) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs work on a thread of its own that enters a network namespace first and never comes back to a pool.
///
/// # Errors
/// When the thread cannot be made or cannot enter.
pub fn with_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(move || {
        enter(netns)?;
        Ok(work())
    })
}

/// Runs work on a thread of its own in a private mount namespace: what it mounts the host does not see.
///
/// # Errors
/// When the thread or the namespace cannot be made.
pub fn with_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(move || {
        unshare(NewNamespaces::MOUNT)?;
        crate::mount::make_private_recursive(c"/")?;
        Ok(work())
    })
}

/// Makes a network namespace; it lives as long as the descriptor or a process in it.
///
/// # Errors
/// What the kernel says.
pub fn new_netns() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(NewNamespaces::NET)?;
        Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
    })
}

/// A detached copy of what a process sees at a path of its own mount namespace; links are not followed.
///
/// # Errors
/// When the process has ended or has nothing there; `ELOOP` for a link.
pub fn tree_of_process(pid: u32, path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let namespace = of_process(pid, "mnt")?;
    on_own_thread(move || {
        // A mount namespace is entered alone: root and working directory must not be shared with other threads.
        // SAFETY: without CLONE_FILES and CLONE_VM no memory or descriptor changes its owner.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        enter(namespace.as_fd())?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let place = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        crate::mount::clone_tree(place.as_fd(), c"", false)
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).stack_size(256 * 1024).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A descriptor of one of a process's namespaces (`net`, `pid`, `ipc`, `uts`, `mnt`, `cgroup`, `user`).
///
/// # Errors
/// When the process has ended.
pub fn of_process(pid: u32, name: &str) -> io::Result<OwnedFd> {
    Ok(OwnedFd::from(File::open(format!("/proc/{pid}/ns/{name}"))?))
}
