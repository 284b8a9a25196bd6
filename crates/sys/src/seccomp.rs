//! Loading of ready seccomp filters. Compiling them is `runtime`'s.

use std::io;

/// Loads a classic BPF program as this thread's seccomp filter; the program is in the kernel's form, 8 bytes an instruction.
///
/// # Errors
/// `EINVAL` for a program that the kernel refuses, `EACCES` without no-new-privileges and CAP_SYS_ADMIN.
pub fn load(program: &[u8]) -> io::Result<()> {
    let count = program.len() / 8;
    let length = u16::try_from(count).ok().filter(|_| count > 0 && program.len().is_multiple_of(8));
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `length` instructions that live until the call returns; the kernel copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
