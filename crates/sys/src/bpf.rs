//! eBPF programs for cgroup v2 devices: load and attach with bpf(2).
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the kernel's interfaces mix widths and signs: the values are flags, descriptors and process ids"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a device filter (eBPF instructions of 8 bytes) and attaches it to a cgroup v2 directory.
///
/// # Errors
/// What bpf(2) says: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `EINVAL` or `EACCES` for a program that the verifier refuses.
pub fn attach_device_filter(cgroup: &OwnedFd, program: &[u8]) -> io::Result<()> {
    let count = u32::try_from(program.len() / 8).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let load = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: count,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the attributes point to `count` instructions and a C string that live until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadAttributes>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a non-negative result is a fresh descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes are valid for an attach command; both descriptors are open.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<AttachAttributes>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
