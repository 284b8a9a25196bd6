//! Sealed anonymous files.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// An anonymous file with this content that nobody can change any more, read position at its start.
///
/// # Errors
/// What the kernel says.
pub fn sealed(name: &CStr, content: &[u8], executable: bool) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 wants to be told; older ones know no such flag.
    let flag = MemfdFlags::from_bits_retain(if executable { 0x10 } else { 0x8 });
    let fd = memfd_create(name, base | flag).or_else(|_| memfd_create(name, base))?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    file.rewind()?;
    let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    if fcntl_add_seals(&file, seals).is_err() {
        seals.remove(SealFlags::SEAL);
        fcntl_add_seals(&file, seals)?;
    }
    Ok(OwnedFd::from(file))
}
