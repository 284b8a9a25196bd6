//! User and group identities of a thread, and of who is at the other end of a socket.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::process::{Gid, Uid};

/// Most supplementary groups of a process (Linux: `NGROUPS_MAX`).
const MOST_GROUPS: usize = 65536;

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

/// A user as files know one: with all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Reader {
    /// Somebody with these ids.
    #[must_use]
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Self { uid, gid, groups }
    }

    /// Who connected a unix socket, as of then: the kernel knows.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self { uid: peer.uid.as_raw(), gid: peer.gid.as_raw(), groups: peer_groups(socket)? })
    }

    /// The user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether nothing is hidden from this user.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Looks at files as this user does until the answer goes: user, groups, and no capability that opens what others may not.
    /// This thread alone, whose other rights stay. For root, and for who is this user anyway, nothing changes.
    ///
    /// # Errors
    /// A caller who may not.
    pub fn look(&self) -> io::Result<Look> {
        let own = rustix::process::getgroups()?;
        let look = Look { before: (set_fs_uid(None), set_fs_gid(None), own), changed: !self.is_root(), _thread: PhantomData };
        if !look.changed {
            return Ok(look);
        }
        // In this order, as the user's change takes the right to the others away from nobody: they hang on other capabilities.
        let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        set_fs_gid(Some(self.gid));
        set_fs_uid(Some(self.uid));
        // These calls tell no failure.
        if (set_fs_uid(None), set_fs_gid(None)) != (self.uid, self.gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(look)
    }
}

/// A thread that looks at files as somebody else; ends when it goes.
#[derive(Debug)]
pub struct Look {
    before: (u32, u32, Vec<Gid>),
    changed: bool,
    /// It belongs to one thread.
    _thread: PhantomData<*const ()>,
}

impl Drop for Look {
    fn drop(&mut self) {
        if !self.changed {
            return;
        }
        let (uid, gid, groups) = &self.before;
        set_fs_uid(Some(*uid));
        set_fs_gid(Some(*gid));
        let is_back = rustix::thread::set_thread_groups(groups).is_ok() && (set_fs_uid(None), set_fs_gid(None)) == (*uid, *gid);
        if !is_back {
            // Nothing may be done with another's identity.
            std::process::abort();
        }
    }
}

/// Sets the thread's user for files, or only asks for it; gives the one before.
fn set_fs_uid(uid: Option<u32>) -> u32 {
    // SAFETY: the call takes a number and changes this thread's credentials only; an invalid number (-1) changes nothing.
    // JUSTIFICATION: rustix has no setfsuid.
    let before = unsafe { libc::setfsuid(uid.unwrap_or(u32::MAX)) };
    before.cast_unsigned()
}

/// Sets the thread's group for files, or only asks for it; gives the one before.
fn set_fs_gid(gid: Option<u32>) -> u32 {
    // SAFETY: as above.
    // JUSTIFICATION: rustix has no setfsgid.
    let before = unsafe { libc::setfsgid(gid.unwrap_or(u32::MAX)) };
    before.cast_unsigned()
}

/// `SO_PEERGROUPS` (Linux 4.13): the peer's supplementary groups.
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).map_err(io::Error::other)?;
        // SAFETY: the buffer has `bytes` bytes and outlives the call, which writes at most so many and their number into `bytes`.
        // JUSTIFICATION: rustix has no SO_PEERGROUPS.
        let result = unsafe {
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut bytes)
        };
        if result == 0 {
            groups.truncate(bytes as usize / size_of::<u32>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= MOST_GROUPS {
            return Err(error);
        }
        groups.resize(MOST_GROUPS, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_oneself() {
        let (one, _two) = crate::sock::pair().unwrap();
        let peer = Reader::of_peer(one.as_fd()).unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups().unwrap().into_iter().map(Gid::as_raw).collect();
        let mut groups = peer.groups.clone();
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!((peer.uid, peer.gid, groups), (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), own));
    }

    #[test]
    fn a_look_shows_what_the_user_may_see_and_ends() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str, mode: u32, owner: (u32, u32)| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let files = [
            (file("root's", 0o600, (0, 0)), false),
            (file("everybody's", 0o644, (0, 0)), true),
            (file("own", 0o400, (4001, 4001)), true),
            (file("the group's", 0o040, (0, 4001)), true),
            (file("another group's", 0o040, (0, 4002)), true),
            (file("a third group's", 0o040, (0, 4003)), false),
        ];
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let path = files[0].0.clone();
        let other = std::thread::spawn(move || asked.recv().is_ok() && std::fs::read(path).is_ok());
        let reader = Reader::new(4001, 4001, vec![4002]);
        let look = reader.look().unwrap();
        let seen: Vec<bool> = files.iter().map(|(path, _)| std::fs::read(path).is_ok()).collect();
        ask.send(()).unwrap();
        assert!(other.join().unwrap(), "other threads are who they were");
        drop(look);
        assert_eq!(seen, files.iter().map(|(_, wanted)| *wanted).collect::<Vec<_>>());
        assert!(files.iter().all(|(path, _)| std::fs::read(path).is_ok()), "all is as before");
        let root = Reader::new(0, 0, Vec::new());
        let _look = root.look().unwrap();
        assert!(std::fs::read(&files[0].0).is_ok());
    }
}
