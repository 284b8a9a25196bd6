//! A root that is changed: directories made, files written, links set; every path inside of it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use sampan_sandbox::{User, UserError, resolve_user_in};
use sampan_sys::dir;

use super::earlier::{Earlier, Record, Wanted};
use super::folder::{Folder, Found, Merged};
use super::source::{Node, NodeKind, join, split};

/// Longest passwd or group file that is read.
const LONGEST: u64 = 4 << 20;

/// A writable root: a directory with all that is in it, or an upper directory over others.
#[derive(Debug)]
pub(crate) struct Target {
    root: Root,
    earlier: Option<Earlier>,
    record: RefCell<Record>,
}

#[derive(Debug)]
enum Root {
    Plain(OwnedFd),
    Merged(Merged),
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

/// A file that is to be made, with its source's attributes.
pub(crate) struct NewFile<'a> {
    pub(crate) node: &'a Node,
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// Its hash, where that is known without reading it.
    pub(crate) hash: Option<[u8; 32]>,
}

impl Target {
    /// A directory as it is.
    pub(crate) fn plain(root: OwnedFd) -> Self {
        Self { root: Root::Plain(root), earlier: None, record: RefCell::default() }
    }

    /// A new layer's upper directory over its lower ones; and an earlier result of the same step.
    pub(crate) fn merged(merged: Merged, earlier: Option<Earlier>) -> Self {
        Self { root: Root::Merged(merged), earlier, record: RefCell::default() }
    }

    /// What was copied, for the next result of this step.
    pub(crate) fn into_record(self) -> Record {
        self.record.into_inner()
    }

    /// Whether hashes of files are of use.
    pub(crate) fn wants_hashes(&self) -> bool {
        matches!(self.root, Root::Merged(_))
    }

    /// Where what is made in a directory goes.
    pub(super) fn writable<'a>(&self, folder: &'a Folder) -> io::Result<&'a OwnedFd> {
        folder.writable(if let Root::Merged(merged) = &self.root { Some(merged) } else { None })
    }

    /// Opens a directory; links are followed.
    fn open(&self, path: &[u8]) -> io::Result<Folder> {
        match &self.root {
            Root::Plain(root) => {
                let folder = dir::open_in(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                Ok(Folder::plain(path.to_vec(), folder))
            }
            Root::Merged(merged) => match merged.resolve(path)? {
                (real, Found::Directory) => merged.folder(real),
                _ => Err(rustix::io::Errno::NOTDIR.into()),
            },
        }
    }

    /// Whether a path is a directory, links followed.
    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        match &self.root {
            Root::Plain(root) => dir::open_in(root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY).is_ok(),
            Root::Merged(merged) => matches!(merged.resolve(path), Ok((_, Found::Directory))),
        }
    }

    /// Where a path leads that may end in links, whether something is there or not.
    pub(crate) fn followed(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let mut path = path.to_vec();
        for _ in 0..LINKS {
            match self.link_at(&path) {
                Ok(Some(link)) if link.starts_with(b"/") => path = link,
                Ok(Some(link)) => path = join(split(&path).0, &link),
                Ok(None) => return Ok(path),
                // No such folder; none at all.
                Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => return Ok(path),
                Err(error) => return Err(error),
            }
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    /// The target of a link, where a path is one.
    fn link_at(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let place = match &self.root {
            Root::Plain(root) => dir::open_in(root.as_fd(), path, flags)?,
            Root::Merged(merged) => {
                let (folder, name) = split(path);
                merged.open(&join(&merged.resolve(folder)?.0, name), flags)?
            }
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        Ok(Some(rustix::fs::readlinkat(&place, "", Vec::new())?.into_bytes()))
    }

    /// Opens a directory and makes what is missing on the way to it.
    pub(crate) fn directory(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<Folder> {
        match self.open(path) {
            Err(error) if is_missing(&error) => {}
            other => return other,
        }
        let mut at: Vec<u8> = Vec::new();
        let mut folder = self.open(b"")?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            at = join(&at, part);
            folder = match self.open(&at) {
                Err(error) if is_missing(&error) => {
                    let led = self.followed(&at)?;
                    if led != at {
                        folder = self.directory(&led, mode, owner)?;
                        continue;
                    }
                    let made = self.make(&folder, part)?.ok_or(rustix::io::Errno::EXIST)?;
                    let directory = self.writable(&made)?;
                    own(directory, owner)?;
                    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))?;
                    made
                }
                other => other?,
            };
        }
        Ok(folder)
    }

    /// Makes a directory; `None` where something has its name.
    fn make(&self, folder: &Folder, name: &[u8]) -> io::Result<Option<Folder>> {
        if folder.below(name)? != Found::Nothing {
            return Ok(None);
        }
        let (parent, name_text) = (self.writable(folder)?, OsStr::from_bytes(name));
        match rustix::fs::mkdirat(parent, name_text, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name_text, flags, Mode::empty())?;
        Ok(Some(Folder::plain(join(&folder.path, name), made)))
    }

    /// Makes one directory with a node's attributes inside an open folder, or opens the one that is there. Says whether it was made.
    pub(crate) fn enter(&self, folder: &Folder, name: &[u8], node: &Node, mode: u32, owner: Owner) -> io::Result<(Folder, bool)> {
        if let Some(made) = self.make(folder, name)? {
            let directory = self.writable(&made)?;
            own(directory, owner)?;
            rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))?;
            set_xattrs(directory, node)?;
            return Ok((made, true));
        }
        if folder.look(name)? != Found::Directory {
            return Err(io::Error::other("cannot copy a directory over something that is none"));
        }
        let path = join(&folder.path, name);
        match &self.root {
            Root::Merged(merged) => Ok((merged.folder(path)?, false)),
            Root::Plain(_) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(self.writable(folder)?, OsStr::from_bytes(name), flags, Mode::empty())?;
                Ok((Folder::plain(path, inner), false))
            }
        }
    }

    /// Gives a directory that was there a node's attributes.
    pub(crate) fn renew(&self, folder: &Folder, node: &Node, mode: u32, owner: Owner) -> io::Result<()> {
        let directory = self.writable(folder)?;
        rustix::fs::fchown(directory, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))?;
        set_xattrs(directory, node)
    }

    /// Makes room for something that is no directory.
    fn clear(&self, folder: &Folder, name: &[u8]) -> io::Result<()> {
        let there = || io::Error::other("cannot copy to a directory that is there");
        if folder.below(name)? == Found::Directory {
            return Err(there());
        }
        match rustix::fs::unlinkat(self.writable(folder)?, OsStr::from_bytes(name), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => Err(there()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file with a node's attributes, or links it where an earlier layer has the same.
    pub(crate) fn file(&self, folder: &Folder, name: &[u8], content: &mut Content<'_>, new: &NewFile<'_>) -> io::Result<()> {
        let NewFile { node, mode, owner, hash } = *new;
        let path = join(&folder.path, name);
        // Attributes are not compared: files that have some are always copied.
        let hash = hash.filter(|_| node.xattrs.is_empty());
        let is_taken = folder.below(name)? == Found::Directory;
        if let (Some(hash), Some(earlier), false) = (&hash, &self.earlier, is_taken)
            && earlier.link(&path, &Wanted { hash, node, mode, owner }, self.writable(folder)?, OsStr::from_bytes(name))
        {
            self.record.borrow_mut().add(path, *hash);
            return Ok(());
        }
        self.write(folder, name, content, new)?;
        match hash {
            Some(hash) => self.record.borrow_mut().add(path, hash),
            None => self.record.borrow_mut().forget(&path),
        }
        Ok(())
    }

    fn write(&self, folder: &Folder, name: &[u8], content: &mut Content<'_>, new: &NewFile<'_>) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || -> io::Result<OwnedFd> {
            Ok(rustix::fs::openat(self.writable(folder)?, OsStr::from_bytes(name), flags, Mode::from_raw_mode(0o600))?)
        };
        if folder.below(name)? == Found::Directory {
            self.clear(folder, name)?;
        }
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(folder, name)?;
                create()?
            }
            other => other?,
        };
        let mut file = File::from(file);
        match content {
            Content::Bytes(bytes) => io::Write::write_all(&mut file, bytes)?,
            Content::File(open) => copy_content(&open()?, &mut file, new.node.size)?,
        }
        own(&file, new.owner)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(new.mode))?;
        set_xattrs(&file, new.node)?;
        rustix::fs::futimens(&file, &times(new.node.mtime))?;
        Ok(())
    }

    /// Makes a link, a pipe or a device like a node.
    pub(crate) fn special(&self, folder: &Folder, name: &[u8], node: &Node, mode: u32, owner: Owner) -> io::Result<()> {
        self.clear(folder, name)?;
        self.record.borrow_mut().forget(&join(&folder.path, name));
        let (folder, name) = (self.writable(folder)?, OsStr::from_bytes(name));
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
    pub(crate) fn same(&self, first: (&OwnedFd, &[u8]), folder: &Folder, name: &[u8]) -> io::Result<()> {
        self.clear(folder, name)?;
        self.record.borrow_mut().forget(&join(&folder.path, name));
        let (folder, name) = (self.writable(folder)?, OsStr::from_bytes(name));
        Ok(rustix::fs::linkat(first.0, OsStr::from_bytes(first.1), folder, name, AtFlags::empty())?)
    }

    /// The start of a file.
    fn read(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = match &self.root {
            Root::Plain(root) => dir::open_in(root.as_fd(), path, flags)?,
            Root::Merged(merged) => merged.open(&merged.resolve(path)?.0, flags)?,
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::from(file), LONGEST), &mut bytes)?;
        Ok(bytes)
    }

    /// Looks up `user[:group]` in the root's own files.
    pub(crate) fn owner(&self, wish: &str) -> Result<Owner, String> {
        let text = |path: &str| String::from_utf8_lossy(&self.read(path.as_bytes()).unwrap_or_default()).into_owned();
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
    /// A file that is opened where it has to be copied.
    File(&'a dyn Fn() -> io::Result<File>),
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
