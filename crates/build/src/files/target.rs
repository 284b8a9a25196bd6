//! A root that is changed: directories made, files written, links set; every path inside of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use sampan_sandbox::{User, UserError, resolve_user_in};
use sampan_sys::dir;

use super::source::{Node, NodeKind, join, split};

/// Longest passwd or group file that is read.
const LONGEST: u64 = 4 << 20;

/// A writable root.
#[derive(Debug)]
pub(crate) struct Target {
    root: OwnedFd,
}

/// Links that are followed on one way.
const LINKS: usize = 40;

/// Owner and group.
pub(crate) type Owner = (u32, u32);

pub(crate) fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(2)
}

impl Target {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    /// Whether a path is a directory, links followed.
    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        dir::open_in(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// Where a path leads that may end in links, whether something is there or not.
    pub(crate) fn followed(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let mut path = path.to_vec();
        for _ in 0..LINKS {
            let place = match dir::open_in(self.root.as_fd(), &path, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(place) => place,
                Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => return Ok(path),
                Err(error) => return Err(error),
            };
            if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Symlink {
                return Ok(path);
            }
            let link = rustix::fs::readlinkat(&place, "", Vec::new())?.into_bytes();
            path = if link.starts_with(b"/") { link } else { join(split(&path).0, &link) };
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    /// Opens a directory and makes what is missing on the way to it.
    pub(crate) fn directory(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match dir::open_in(self.root.as_fd(), path, flags) {
            Err(error) if is_missing(&error) => {}
            other => return other,
        }
        let mut at: Vec<u8> = Vec::new();
        let mut folder = dir::open_in(self.root.as_fd(), b"", flags)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            at = join(&at, part);
            folder = match dir::open_in(self.root.as_fd(), &at, flags) {
                Err(error) if is_missing(&error) => {
                    let led = self.followed(&at)?;
                    if led != at {
                        folder = self.directory(&led, mode, owner)?;
                        continue;
                    }
                    let name = OsStr::from_bytes(part);
                    rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
                    let made = rustix::fs::openat(&folder, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                    own(&made, owner)?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                    made
                }
                other => other?,
            };
        }
        Ok(folder)
    }

    /// Makes one directory with a node's attributes inside an open folder, or opens the one that is there. Says whether it was made.
    pub(crate) fn enter(&self, folder: &OwnedFd, name: &[u8], node: &Node, mode: u32, owner: Owner) -> io::Result<(OwnedFd, bool)> {
        let name = OsStr::from_bytes(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        if !made {
            return match rustix::fs::openat(folder, name, flags, Mode::empty()) {
                Ok(directory) => Ok((directory, false)),
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    Err(io::Error::other("cannot copy a directory over something that is none"))
                }
                Err(error) => Err(error.into()),
            };
        }
        let directory = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        own(&directory, owner)?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
        set_xattrs(&directory, node)?;
        Ok((directory, true))
    }

    /// Gives a directory that was there a node's attributes.
    pub(crate) fn renew(&self, directory: &OwnedFd, node: &Node, mode: u32, owner: Owner) -> io::Result<()> {
        rustix::fs::fchown(directory, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))?;
        set_xattrs(directory, node)
    }

    /// Makes room for something that is no directory.
    fn clear(&self, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => Err(io::Error::other("cannot copy to a directory that is there")),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file with a node's attributes.
    pub(crate) fn file(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        content: &mut Content<'_>,
        node: &Node,
        mode: u32,
        owner: Owner,
    ) -> io::Result<()> {
        let name = OsStr::from_bytes(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)) {
            Err(rustix::io::Errno::EXIST) => {
                self.clear(folder, name)?;
                rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?
            }
            other => other?,
        };
        let mut file = File::from(file);
        match content {
            Content::Bytes(bytes) => io::Write::write_all(&mut file, bytes)?,
            Content::File(source) => copy_content(source, &mut file, node.size)?,
        }
        own(&file, owner)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        set_xattrs(&file, node)?;
        rustix::fs::futimens(&file, &times(node.mtime))?;
        Ok(())
    }

    /// Makes a link, a pipe or a device like a node.
    pub(crate) fn special(&self, folder: &OwnedFd, name: &[u8], node: &Node, mode: u32, owner: Owner) -> io::Result<()> {
        let name = OsStr::from_bytes(name);
        self.clear(folder, name)?;
        match node.kind {
            NodeKind::Symlink => rustix::fs::symlinkat(OsStr::from_bytes(&node.link), folder, name)?,
            NodeKind::Fifo => rustix::fs::mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            // A device of a context would be a way to the host's.
            _ => return Ok(()),
        }
        rustix::fs::chownat(folder, name, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)), AtFlags::SYMLINK_NOFOLLOW)?;
        if node.kind == NodeKind::Fifo {
            dir::set_mode(folder.as_fd(), name, FileType::Fifo, mode)?;
        }
        rustix::fs::utimensat(folder, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Makes a further name of a file that was written before.
    pub(crate) fn same(&self, first: (&OwnedFd, &[u8]), folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.clear(folder, OsStr::from_bytes(name))?;
        Ok(rustix::fs::linkat(first.0, OsStr::from_bytes(first.1), folder, OsStr::from_bytes(name), AtFlags::empty())?)
    }

    /// Looks up `user[:group]` in the root's own files.
    pub(crate) fn owner(&self, wish: &str) -> Result<Owner, String> {
        let text = |path: &str| -> String {
            let Ok(place) = dir::open_in(self.root.as_fd(), b"etc", OFlags::PATH | OFlags::DIRECTORY) else { return String::new() };
            let Ok(file) = dir::open_in(self.root.as_fd(), path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) else {
                return String::new();
            };
            drop(place);
            let mut bytes = Vec::new();
            drop(io::Read::read_to_end(&mut io::Read::take(File::from(file), LONGEST), &mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let (user, group) = wish.split_once(':').map_or((wish, None), |(user, group)| (user, Some(group)));
        // A number alone is owner and group.
        if let (Some(uid), None) = (number(user), group) {
            return Ok((uid, uid));
        }
        let User { uid, gid, .. } = resolve_user_in(wish, &[], &text("etc/passwd"), &text("etc/group")).map_err(|error| match error {
            UserError::NoUser(name) => format!("can't find uid for user {name}: no such user: {name}"),
            UserError::NoGroup(name) => format!("can't find gid for group {name}: no such group: {name}"),
            UserError::Range => error.to_string(),
        })?;
        if group.is_none() {
            let own = text("etc/group");
            let of_name = own.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok()).flatten()
            });
            return Ok((uid, of_name.unwrap_or(gid)));
        }
        Ok((uid, gid))
    }
}

/// What a file gets.
pub(crate) enum Content<'a> {
    Bytes(&'a [u8]),
    File(File),
}

fn own(file: impl AsFd, (uid, gid): Owner) -> io::Result<()> {
    // What we make is root's already.
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    Ok(rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

fn set_xattrs(file: impl AsFd, node: &Node) -> io::Result<()> {
    for (name, value) in &node.xattrs {
        rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Copies a file: by the kernel where it can, else through a buffer.
fn copy_content(source: &File, target: &mut File, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(source, None, &*target, None, most) {
            Ok(0) => break,
            Ok(count) => left -= count as u64,
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                let mut source = io::Read::take(source, left);
                let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
                loop {
                    let count = io::Read::read(&mut source, &mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    io::Write::write_all(target, &buffer[..count])?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The folder of an absolute path and the name in it.
pub(crate) fn place(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    let (folder, name) = split(&path[start..end]);
    (folder.to_vec(), name.to_vec())
}
