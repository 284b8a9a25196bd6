//! Packing of a directory into an archive: names sorted, so that the same tree gives the same bytes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use sampan_archive::tar::{Header, Kind, Writer};
use sampan_base::Cancel;
use sampan_sys::dir;

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackMode {
    /// An overlay's upper directory: its whiteouts take the form of image layers.
    Upper,
    /// Files as they are.
    Plain,
}

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content and of the targets of symbolic links.
    pub content: u64,
}

/// Packs everything below a directory, with an entry for the directory itself when `root_entry` says so.
///
/// # Errors
/// A failing disk or stream; [`io::ErrorKind::Interrupted`] when cancelled.
pub fn pack(directory: BorrowedFd<'_>, out: impl Write, mode: PackMode, cancel: &Cancel) -> io::Result<Packed> {
    pack_below(directory, b"", out, mode, false, cancel)
}

/// The same with every path behind a prefix; the directory itself is entered under the prefix.
///
/// # Errors
/// As [`pack`].
pub fn pack_below(
    directory: BorrowedFd<'_>,
    prefix: &[u8],
    out: impl Write,
    mode: PackMode,
    root_entry: bool,
    cancel: &Cancel,
) -> io::Result<Packed> {
    let mut packer = Packer { writer: Writer::new(out), mode, seen: HashMap::new(), done: Packed::default() };
    let own = rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    if root_entry {
        let mut header = facts(&rustix::fs::fstat(&own)?, prefix.to_vec(), Kind::Directory);
        header.xattrs = xattrs(&own, mode)?;
        packer.append(&header)?;
    }
    packer.tree(own, prefix, cancel)?;
    packer.writer.finish()?;
    Ok(packer.done)
}

/// Packs one file, link or special file under a name.
///
/// # Errors
/// As [`pack`].
pub fn pack_one(parent: BorrowedFd<'_>, name: &OsStr, path: &[u8], out: impl Write) -> io::Result<()> {
    let mut packer = Packer { writer: Writer::new(out), mode: PackMode::Plain, seen: HashMap::new(), done: Packed::default() };
    packer.entry(parent, name, path)?;
    packer.writer.finish()?;
    Ok(())
}

/// Longest path, as readers of archives take them.
const DEEPEST: usize = 4096;
/// How many folders are kept open on the way down.
const OPEN_FOLDERS: usize = 32;

/// A folder that is being packed; one far above the present one is closed meanwhile.
struct Folder {
    /// What is left of it.
    names: Vec<OsString>,
    directory: Option<OwnedFd>,
    /// Its path in the archive.
    path: Vec<u8>,
}

impl Folder {
    /// The open folder; `None` when it is gone meanwhile.
    fn open(&mut self, root: BorrowedFd<'_>, prefix: &[u8]) -> io::Result<Option<OwnedFd>> {
        if self.directory.is_none() {
            let below = self.path[prefix.len()..].iter().copied().skip_while(|byte| *byte == b'/').collect::<Vec<_>>();
            match dir::open_plain_in(root, &below, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(error) if matches!(error.raw_os_error(), Some(2 | 20 | 40)) => return Ok(None),
                other => self.directory = Some(other?),
            }
        }
        self.directory.as_ref().map(OwnedFd::try_clone).transpose()
    }
}

struct Packer<W: Write> {
    writer: Writer<W>,
    mode: PackMode,
    /// First path of each file with several names.
    seen: HashMap<(u64, u64), Vec<u8>>,
    done: Packed,
}

impl<W: Write> Packer<W> {
    fn append(&mut self, header: &Header) -> io::Result<()> {
        self.done.entries += 1;
        self.writer.append(header, &mut io::empty())
    }

    /// Depth first with a stack of its own: the depth of a tree is a stranger's choice.
    fn tree(&mut self, directory: OwnedFd, prefix: &[u8], cancel: &Cancel) -> io::Result<()> {
        let root = directory.try_clone()?;
        let mut stack = vec![Folder { names: names(&directory)?, directory: Some(directory), path: prefix.to_vec() }];
        while let Some(folder) = stack.last_mut() {
            let Some(name) = folder.names.pop() else {
                stack.pop();
                continue;
            };
            cancel.check().map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
            let mut path = folder.path.clone();
            if !path.is_empty() && !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if path.len() > DEEPEST {
                let text = format!("the tree is deeper than archives are: a path of more than {DEEPEST} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            let Some(directory) = folder.open(root.as_fd(), prefix)? else {
                stack.pop();
                continue;
            };
            if let Some(inner) = self.entry(directory.as_fd(), &name, &path)? {
                if let Some(above) = stack.len().checked_sub(OPEN_FOLDERS) {
                    stack[above].directory = None;
                }
                stack.push(Folder { names: names(&inner)?, directory: Some(inner), path });
            }
        }
        Ok(())
    }

    /// Packs one name; a directory is given back to be entered.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone meanwhile: a live tree changes while it is packed.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(parent, name, flags, rustix::fs::Mode::empty())?;
                let mut header = facts(&stat, path.to_vec(), Kind::Directory);
                header.xattrs = xattrs(&inner, self.mode)?;
                self.append(&header)?;
                if self.mode == PackMode::Upper && is_opaque(&inner) {
                    self.append(&Header::new(Kind::File, [path, b"/.wh..wh..opq"].concat()))?;
                }
                return Ok(Some(inner));
            }
            FileType::RegularFile => self.file(&stat, path, parent, name)?,
            FileType::Symlink => {
                let mut header = facts(&stat, path.to_vec(), Kind::Symlink);
                header.link = rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes();
                self.done.content += header.link.len() as u64;
                self.append(&header)?;
            }
            FileType::CharacterDevice if self.mode == PackMode::Upper && stat.st_rdev == 0 => {
                let folder = &path[..path.len() - name.as_bytes().len()];
                self.append(&Header::new(Kind::File, [folder, b".wh.", name.as_bytes()].concat()))?;
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                let kind = if kind == FileType::BlockDevice { Kind::Block } else { Kind::Character };
                let mut header = facts(&stat, path.to_vec(), kind);
                header.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.append(&header)?;
            }
            FileType::Fifo => self.append(&facts(&stat, path.to_vec(), Kind::Fifo))?,
            // Sockets have no place in archives.
            _ => {}
        }
        Ok(None)
    }

    fn file(&mut self, stat: &Stat, path: &[u8], parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = facts(stat, path.to_vec(), Kind::Hardlink);
                header.link.clone_from(first);
                return self.append(&header);
            }
            self.seen.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let file = dir::open_regular(parent, name)?;
        let stat = rustix::fs::fstat(&file)?;
        let mut header = facts(&stat, path.to_vec(), Kind::File);
        header.size = u64::try_from(stat.st_size).unwrap_or(0);
        header.xattrs = xattrs(&file, self.mode)?;
        self.done.entries += 1;
        self.done.content += header.size;
        // A file that shrinks while it is read is filled up, as tar does: the entry must keep its promised size.
        let mut content = io::Read::chain(File::from(file), io::repeat(0));
        self.writer.append(&header, &mut content)
    }
}

fn facts(stat: &Stat, path: Vec<u8>, kind: Kind) -> Header {
    let mut header = Header::new(kind, path);
    header.mode = stat.st_mode & 0o7777;
    header.uid = stat.st_uid;
    header.gid = stat.st_gid;
    header.mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    header
}

/// Names of a directory, last first, so that popping gives them in order.
fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

pub(crate) fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 2];
    rustix::fs::fgetxattr(directory, crate::OPAQUE, &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
}

fn xattrs(file: &OwnedFd, mode: PackMode) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut out = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let kept = name == "security.capability" || name.starts_with("user.") || (mode == PackMode::Upper && name.starts_with("trusted."));
        if !kept || name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        out.push((name.to_owned(), value));
    }
    Ok(out)
}
