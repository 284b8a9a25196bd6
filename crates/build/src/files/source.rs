//! Where files come from: anything that can be looked up, listed and read by path.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use sampan_sys::dir;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A device.
    Device,
}

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its path in the source, without slashes at the ends.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: NodeKind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: (i64, u32),
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Device and inode, where several names of a file tell that they are one.
    pub(crate) identity: Option<(u64, u64)>,
    /// A device's number.
    pub(crate) device: u64,
}

impl Node {
    /// Its last name.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// A tree of files that is read.
pub(crate) trait Source: Send + Sync {
    /// Looks a path up; links on the way are followed inside the source, the last one where `follow` says so.
    fn find(&self, path: &[u8], follow: bool) -> io::Result<Option<Node>>;
    /// The nodes of a directory, by name.
    fn children(&self, directory: &Node) -> io::Result<Vec<Node>>;
    /// The content of a file.
    fn open(&self, file: &Node) -> io::Result<File>;
    /// The hash of a file's content.
    fn content(&self, file: &Node) -> io::Result<[u8; 32]>;
    /// Whether files belong to the user that the source says, or to root.
    fn has_owners(&self) -> bool;

    /// Whether it may change while it is read.
    fn is_live(&self) -> bool {
        false
    }

    /// The bytes of a file, up to a limit; `None` when it is none.
    fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(node) = self.find(path.as_bytes(), true)?.filter(|node| node.kind == NodeKind::File) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.open(&node)?.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Hashes a file of about a size.
pub(crate) fn hash(mut file: &File, size: u64) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    // One byte more, so that most files are read at once.
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).clamp(4096, 128 * 1024)];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&buffer[..count]);
    }
}

/// A directory by descriptor, with all that is in it: the root of a stage or of an image.
#[derive(Debug)]
pub(crate) struct TreeSource {
    root: OwnedFd,
}

impl TreeSource {
    /// The tree below a directory.
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root }
    }
}

/// Splits a path into its folder and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((&[], path), |slash| (&path[..slash], &path[slash + 1..]))
}

/// A path below another.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn is_absent(error: &io::Error) -> bool {
    // No such file; not a directory; too many links.
    matches!(error.raw_os_error(), Some(2 | 20 | 40))
}

fn node(path: Vec<u8>, stat: &Stat, place: &OwnedFd) -> io::Result<Option<Node>> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::CharacterDevice | FileType::BlockDevice => NodeKind::Device,
        // Sockets have no place in images.
        _ => return Ok(None),
    };
    let link = if kind == NodeKind::Symlink { rustix::fs::readlinkat(place, "", Vec::new())?.into_bytes() } else { Vec::new() };
    Ok(Some(Node {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == NodeKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        link,
        xattrs: if matches!(kind, NodeKind::File | NodeKind::Directory) { xattrs(place, &is_kept)? } else { Vec::new() },
        identity: (stat.st_nlink > 1 && kind == NodeKind::File).then_some((stat.st_dev, stat.st_ino)),
        device: stat.st_rdev,
    }))
}

/// Whether images keep an attribute.
pub(crate) fn is_kept(name: &str) -> bool {
    name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// Those attributes of a file that somebody wants.
pub(super) fn xattrs(place: &OwnedFd, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<(String, Vec<u8>)>> {
    let path = format!("/proc/thread-self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(place));
    let mut list = vec![0_u8; 4096];
    let length = match rustix::fs::listxattr(&path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::RANGE) => {
            list.resize(64 * 1024, 0);
            rustix::fs::listxattr(&path, &mut list[..])?
        }
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut out = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if !wanted(name) {
            continue;
        }
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::getxattr(&path, name, &mut value[..])?;
        value.truncate(length);
        out.push((name.to_owned(), value));
    }
    out.sort();
    Ok(out)
}

impl Source for TreeSource {
    fn find(&self, path: &[u8], follow: bool) -> io::Result<Option<Node>> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let place = match dir::open_in(self.root.as_fd(), path, flags) {
            Ok(place) => place,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        node(path.to_vec(), &rustix::fs::fstat(&place)?, &place)
    }

    fn children(&self, directory: &Node) -> io::Result<Vec<Node>> {
        let folder = dir::open_in(self.root.as_fd(), &directory.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut out = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = match rustix::fs::openat(&folder, OsStr::from_bytes(name), flags, rustix::fs::Mode::empty()) {
                Ok(place) => place,
                // Gone meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::statat(&place, "", AtFlags::EMPTY_PATH)?;
            out.extend(node(join(&directory.path, name), &stat, &place)?);
        }
        out.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(out)
    }

    fn open(&self, file: &Node) -> io::Result<File> {
        let (folder, name) = split(&file.path);
        let folder = dir::open_in(self.root.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY)?;
        match dir::open_regular(folder.as_fd(), OsStr::from_bytes(name)) {
            Ok(file) => Ok(file.into()),
            // The last name was a link that was followed.
            Err(_) => Ok(dir::open_in(self.root.as_fd(), &file.path, OFlags::RDONLY | OFlags::NONBLOCK)?.into()),
        }
    }

    fn content(&self, file: &Node) -> io::Result<[u8; 32]> {
        hash(&self.open(file)?, file.size)
    }

    fn has_owners(&self) -> bool {
        true
    }
}
