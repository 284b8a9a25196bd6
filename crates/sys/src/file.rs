//! Whole files and file systems: locks, syncing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FlockOperation;

/// Takes an exclusive lock on a file, made if missing; `None` when another process has it. Held as long as the file is open.
///
/// # Errors
/// What the kernel says.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    lock(File::options().read(true).write(true).create(true).truncate(false).open(path)?)
}

/// The same on a directory that exists: nothing is left in it.
///
/// # Errors
/// What the kernel says.
pub fn try_lock_directory(path: &Path) -> io::Result<Option<File>> {
    lock(File::open(path)?)
}

fn lock(file: File) -> io::Result<Option<File>> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes everything written to the file system of an open file durable.
///
/// # Errors
/// What syncfs(2) says, also of writes that failed earlier.
pub fn sync_filesystem(any: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(any)?)
}
