//! User and group identities of a thread.

use std::io;

use rustix::process::{Gid, Uid};

/// Makes this thread, and no other of the process, run as a user with one group and without capabilities; there is no way back.
/// Meant for a thread that does one job and ends.
///
/// # Errors
/// A caller who may not.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}
